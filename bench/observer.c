/* observer TTY: what an Engine says of its containers, from its first word on, to a serial port.
 *
 * The same small program watches both machines that bench/boot.py compares. While no Engine is there it sleeps, and a
 * look costs one system call; then it reads one stream, so it takes next to nothing from what is measured.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define FILTERS "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%2C%22die%22%2C%22health_status%22%5D%7D"

/* From the first second of 1970: also what was before the Engine answered. */
static const char REQUEST[] = "GET /events?since=1&filters=" FILTERS " HTTP/1.0\r\nHost: docker\r\n\r\n";

static int connect_to_engine(void) {
    struct sockaddr_un address = {AF_UNIX, "/run/docker.sock"};
    int socket_ = socket(AF_UNIX, SOCK_STREAM, 0);
    if (socket_ >= 0 && connect(socket_, (struct sockaddr *)&address, sizeof address) == 0)
        return socket_;
    close(socket_);
    return -1;
}

int main(int count, char **arguments) {
    struct stat pid_file;
    const struct timespec pause = {0, 20 * 1000 * 1000};
    char buffer[4096];
    int engine, serial = open(count > 1 ? arguments[1] : "/dev/console", O_WRONLY | O_NOCTTY);
    /* Where a service manager listens in the Engine's place, to connect would change what it starts when. */
    while (stat("/run/docker.pid", &pid_file) != 0 || (engine = connect_to_engine()) < 0)
        nanosleep(&pause, 0);
    if (write(engine, REQUEST, strlen(REQUEST)) < 0)
        return 1;
    for (ssize_t length; (length = read(engine, buffer, sizeof buffer)) > 0;)
        if (write(serial, buffer, length) < 0)
            return 1;
    return 1;
}
