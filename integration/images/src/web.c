/* web PORT: a web server that stands in for nginx and httpd.
 *
 * Called by the name nginx it also behaves as nginx does to an onlooker: its title is
 * "nginx: master process", /var/run/nginx.pid holds its pid, a child does the serving.
 * Whatever is asked for, the answer is 200 and its name. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define TITLE "nginx: master process"
#define PID_FILE "/var/run/nginx.pid"
/* A client that says nothing may hold the one server for no longer than this. */
#define CLIENT_SECONDS 5

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void stop(int signal) {
    (void)signal;
    _exit(0);
}

static void stop_on(int signal) {
    struct sigaction action = {.sa_handler = stop};
    if (sigaction(signal, &action, NULL) < 0)
        fail("sigaction");
}

static int listen_on(int port) {
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int any = 1, both = 0;
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &both, sizeof both);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &any, sizeof any);
        if (bind(fd, (struct sockaddr *)&six, sizeof six) == 0 && listen(fd, 64) == 0)
            return fd;
        close(fd);
    }
    /* A kernel or a namespace without IPv6. */
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &any, sizeof any);
    if (bind(fd, (struct sockaddr *)&four, sizeof four) < 0 || listen(fd, 64) < 0)
        fail("bind");
    return fd;
}

static void answer(int fd, const char *name) {
    char request[4096], reply[512], body[64];
    size_t have = 0;
    struct timeval limit = {.tv_sec = CLIENT_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    /* To the end of the head, or as much of it as fits. */
    while (have < sizeof request - 1) {
        ssize_t got = read(fd, request + have, sizeof request - 1 - have);
        if (got <= 0)
            return;
        have += got;
        request[have] = 0;
        if (strstr(request, "\r\n\r\n"))
            break;
    }
    int size = snprintf(body, sizeof body, "<html><body>%s</body></html>\n", name);
    int length = snprintf(reply, sizeof reply,
                          "HTTP/1.1 200 OK\r\nServer: %s\r\nContent-Type: text/html\r\n"
                          "Content-Length: %d\r\nConnection: close\r\n\r\n%s",
                          name, size, body);
    for (int sent = 0; sent < length;) {
        ssize_t put = write(fd, reply + sent, length - sent);
        if (put <= 0)
            return;
        sent += put;
    }
}

static void serve(int listener, const char *name) {
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            fail("accept");
        }
        answer(fd, name);
        close(fd);
    }
}

int main(int argc, char **argv) {
    int nginx = strncmp(argv[0], "nginx", 5) == 0 || strstr(argv[0], "/nginx") != NULL;
    const char *name = nginx ? "nginx" : "httpd";
    int port = argc > 1 ? atoi(argv[1]) : 80;
    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: %s PORT\n", name);
        return 2;
    }
    if (nginx && strcmp(argv[0], TITLE) != 0) {
        /* The title is the first argument of the same program, run once more. */
        char *again[] = {TITLE, argc > 1 ? argv[1] : "80", NULL};
        execv("/usr/sbin/nginx", again);
        fail("/usr/sbin/nginx");
    }
    signal(SIGPIPE, SIG_IGN);
    stop_on(SIGTERM);
    stop_on(SIGINT);
    stop_on(SIGQUIT);
    stop_on(SIGWINCH);
    int listener = listen_on(port);
    fprintf(stderr, "%s: serving on port %d\n", name, port);
    if (!nginx)
        serve(listener, name);

    FILE *file = fopen(PID_FILE, "w");
    if (!file || fprintf(file, "%d\n", getpid()) < 0 || fclose(file) != 0)
        fail(PID_FILE);
    pid_t master = getpid();
    pid_t worker = fork();
    if (worker < 0)
        fail("fork");
    if (worker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != master)
            return 1;
        serve(listener, name);
    }
    int status;
    while (waitpid(worker, &status, 0) < 0 && errno == EINTR)
        ;
    fprintf(stderr, "nginx: the worker ended\n");
    return 1;
}
