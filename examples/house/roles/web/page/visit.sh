#!/bin/sh
visit=$(redis-cli -h redis incr visits)
printf 'Content-Type: text/plain\r\n\r\nvisit %s\n' "$visit"
