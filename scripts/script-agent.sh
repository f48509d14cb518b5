#!/bin/sh
# A script agent for checks. It mostly writes a post at once, sometimes after a delay, and sometimes
# fails, so that jobs end in every way; about growing tomatoes it always writes.
read -r job
case $job in
    *'"topic":"Growing tomatoes"'*) chance=0 ;;
    *) chance=$(printf %s "$job" | cksum | cut -c 1) ;;
esac
case $chance in
    [12]) sleep 0.3 ;;
    3)
        echo '{"type": "error", "message": "not today", "retry": false}'
        exit
        ;;
esac
printf '%s\n' '{"type": "post", "title": "A title", "content": "A first paragraph.\n\nAnd a second."}'
