#!/bin/sh
# A script agent that mostly writes a post at once, sometimes after a delay, and sometimes fails, so
# that jobs end in every way while the API is fuzzed.
read -r job
case $(printf %s "$job" | cksum | cut -c 1) in
    [12]) sleep 0.3 ;;
    3)
        echo '{"type": "error", "message": "not today", "retry": false}'
        exit
        ;;
esac
printf '%s\n' '{"type": "post", "title": "A title", "content": "A first paragraph.\n\nAnd a second."}'
