#!/bin/sh
# An agent that writes at once: mostly a post, now and then after a moment, now and then an
# error. So jobs end in every way while the API is under attack.
read -r job
case $(printf %s "$job" | cksum | cut -c 1) in
    [12]) sleep 0.3 ;;
    3)
        echo '{"type": "error", "message": "not today", "retry": false}'
        exit
        ;;
esac
printf '%s\n' '{"type": "post", "title": "A title", "content": "A first paragraph.\n\nAnd a second."}'
