/* ipcs -m: the shared memory segments of this IPC namespace. */
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc != 2 || strcmp(argv[1], "-m") != 0) {
        fprintf(stderr, "usage: ipcs -m\n");
        return 2;
    }
    FILE *table = fopen("/proc/sysvipc/shm", "r");
    if (!table) {
        perror("/proc/sysvipc/shm");
        return 1;
    }
    char line[512];
    puts("key        shmid      owner      perms      bytes");
    while (fgets(line, sizeof line, table)) {
        int key, id;
        unsigned perms, uid;
        unsigned long size;
        if (sscanf(line, "%d %d %o %lu %*d %*d %*d %u", &key, &id, &perms, &size, &uid) == 5)
            printf("0x%08x %-10d %-10u %-10o %-10lu\n", (unsigned)key, id, uid, perms & 0777, size);
    }
    fclose(table);
    return 0;
}
