# Counts a visit every second and says so every ten. Redis may come and go meanwhile.
trap 'exit 0' TERM
while true; do
    visits=$(redis-cli -h redis incr visits 2>&1)
    case $visits in
        *[!0-9]*) echo "no visit: $visits" ;;
        *0) echo "$visits visits" ;;
    esac
    sleep 1 &
    wait
done
