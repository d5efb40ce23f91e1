/* pause: does nothing until it is told to stop. */
#include <signal.h>
#include <unistd.h>

static void stop(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    /* As PID 1 it gets only the signals it has a handler for. */
    struct sigaction action = {.sa_handler = stop};
    if (sigaction(SIGTERM, &action, NULL) < 0 || sigaction(SIGINT, &action, NULL) < 0)
        return 1;
    for (;;)
        pause();
}
