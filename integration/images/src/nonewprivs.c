/* nonewprivs: says as whom it runs. Setuid root, so the answer tells whether that counted. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
    return printf("Effective uid: %d\n", (int)geteuid()) < 0;
}
