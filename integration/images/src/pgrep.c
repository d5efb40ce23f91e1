/* pgrep TEXT: pids of the processes, but for itself, whose name holds TEXT.
 * Exits 1 where there is none, as the real one does. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: pgrep TEXT\n");
        return 2;
    }
    DIR *proc = opendir("/proc");
    if (!proc) {
        perror("/proc");
        return 3;
    }
    int found = 0;
    for (struct dirent *entry; (entry = readdir(proc));) {
        char path[300], name[64] = "";
        if (!isdigit((unsigned char)entry->d_name[0]) || atoi(entry->d_name) == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
        FILE *comm = fopen(path, "r");
        /* It may have ended since. */
        if (!comm)
            continue;
        if (fgets(name, sizeof name, comm) && strstr(name, argv[1])) {
            puts(entry->d_name);
            found = 1;
        }
        fclose(comm);
    }
    closedir(proc);
    return !found;
}
