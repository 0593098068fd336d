"""Pure planning: `desired` (asked), `actual` (found), `planner` (the next steps), `text` (for people)."""
