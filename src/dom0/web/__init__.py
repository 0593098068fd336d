"""The page that shows a machine: `page` serves it, `session` says who may look, `assets` is what the browser runs;
`network` serves it to devices elsewhere, over TLS with `certificate`.

It knows the agent by its socket alone, and asks there as any other client does.
"""
