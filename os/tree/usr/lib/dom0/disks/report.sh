# shellcheck shell=sh
# What people are told: on the console, and as problems that `dom0 status` shows.

say() { # TEXT
    echo "dom0: $1" >/dev/console
}

problem() { # CODE TEXT
    printf '%s=%s\n' "$1" "$2" >>"$run/disk.problems"
    say "$2"
}

warn() { # TEXT
    problem data-disk "$1"
}

refuse() { # WHAT HINT: the end of a command that a person gave
    printf '%s\n%s\n' "$1" "$2" >&2
    exit 1
}
