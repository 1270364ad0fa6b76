/* Calls a package from threads, with networks of their own and in one pool. NAME and CONSTANT are
 * the package's prefixes. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "NAME.h"

enum { PIXELS = CONSTANT_HEIGHT * CONSTANT_WIDTH, ROW = CONSTANT_WIDTH * CONSTANT_CHANNELS };
static unsigned char image[PIXELS * CONSTANT_CHANNELS];
static NAME_label expected[PIXELS];
static NAME_pool *shared;

static void *work(void *own)
{
    NAME_network *network = NULL;
    NAME_label *labels = malloc(sizeof expected);
    float *scores = malloc(sizeof(float) * CONSTANT_PLANES * PIXELS);
    int code = own ? NAME_create(2, &network) : NAME_create_in(shared, &network);
    for (int i = 0; i < 5 && !code; i++) {
        memset(labels, 99, sizeof expected);
        code = NAME_run(network, image, 0, labels, 0);
        if (!code && memcmp(labels, expected, sizeof expected))
            code = 99;
    }
    if (!code)
        code = NAME_scores(network, image, 0, scores);
    free(labels);
    free(scores);
    NAME_destroy(&network);
    return (void *)(long)code;
}

#define CHECK(condition)                                        \
    if (!(condition)) {                                         \
        fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
        return 1;                                               \
    }

int main(int count, char **arguments)
{
    static unsigned char wide[CONSTANT_HEIGHT * (ROW + 7)];
    static NAME_label apart[CONSTANT_HEIGHT * (CONSTANT_WIDTH + 5)];
    NAME_network *network = NULL;
    pthread_t threads[4];

    for (unsigned i = 0; i < sizeof image; i++)
        image[i] = (unsigned char)(i * 2654435761u >> 13);
    CHECK(NAME_default_threads() >= 1);
    CHECK(NAME_create(2, &network) == CONSTANT_OK);
    CHECK(NAME_run(network, image, 0, expected, 0) == CONSTANT_OK);

    NAME_destroy(&network);
    CHECK(network == NULL);
    CHECK(NAME_create(-1, &network) == CONSTANT_BAD_ARGUMENT && network == NULL);
    CHECK(NAME_create(100000, &network) == CONSTANT_BAD_ARGUMENT);
    CHECK(NAME_create(2, NULL) == CONSTANT_BAD_ARGUMENT);
    CHECK(NAME_create_in(NULL, &network) == CONSTANT_BAD_ARGUMENT);
    CHECK(NAME_pool_create(2, 8, &shared) == CONSTANT_BAD_ARGUMENT && shared == NULL);
    CHECK(NAME_run(NULL, image, 0, expected, 0) == CONSTANT_BAD_ARGUMENT);
    NAME_destroy(&network); /* null by now */
    NAME_destroy(NULL);
    NAME_pool_destroy(NULL);
    for (int code = -1; code < 9; code++)
        CHECK(strlen(NAME_error_text(code)) > 5);

    CHECK(NAME_pool_create(2, CONSTANT_PIN, &shared) == CONSTANT_OK);
    for (long i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(i % 2)) == 0);
    for (int i = 0; i < 4; i++) {
        void *code;
        pthread_join(threads[i], &code);
        CHECK(code == NULL);
    }

    CHECK(NAME_create(2, &network) == CONSTANT_OK);
    CHECK(NAME_run(network, NULL, 0, expected, 0) == CONSTANT_BAD_ARGUMENT);
    CHECK(NAME_run(network, image, 0, NULL, 0) == CONSTANT_BAD_ARGUMENT);
    CHECK(NAME_run(network, image, ROW - 1, expected, 0) == CONSTANT_BAD_ARGUMENT);
    CHECK(NAME_run(network, image, 0, expected, 1) == CONSTANT_BAD_ARGUMENT);
    for (int row = 0; row < CONSTANT_HEIGHT; row++)
        memcpy(wide + row * (ROW + 7), image + row * ROW, ROW);
    usleep(3000); /* its threads sleep now */
    CHECK(NAME_run(network, wide, ROW + 7, apart,
                   (CONSTANT_WIDTH + 5) * (int)sizeof *apart) == CONSTANT_OK);
    for (int row = 0; row < CONSTANT_HEIGHT; row++)
        CHECK(memcmp(apart + row * (CONSTANT_WIDTH + 5), expected + row * CONSTANT_WIDTH,
                     CONSTANT_WIDTH * sizeof *apart) == 0);

    if (count > 1 && strcmp(arguments[1], "fork") == 0) {
        for (int i = 0; i < 3; i++) {
            int status;
            pid_t child = fork();
            if (child == 0) {
                int code = NAME_run(network, image, 0, apart, 0);
                code += memcmp(apart, expected, sizeof expected) != 0;
                NAME_destroy(&network);
                _exit(code);
            }
            CHECK(waitpid(child, &status, 0) == child && status == 0);
        }
    }
    NAME_destroy(&network);
    NAME_pool_destroy(&shared);
    puts("fine");
    return 0;
}
