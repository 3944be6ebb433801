/* SPDX-License-Identifier: MIT */
/*
 * Runs a libFuzzer target over its corpus without libFuzzer, so that every input that once taught
 * something is tried again by `make check` under any compiler. It never invents inputs.
 *
 * Usage: replay_X [FILE or FOLDER]...; without arguments the corpus of X,
 * $srcdir/tests/fuzz/corpus/X ($srcdir is exported by automake's test harness).
 */
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PATH_SIZE 4096

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes);

/* The bytes are copied into a block of exactly their size: valgrind and AddressSanitizer then see
 * the first byte that is read beyond the end. */
static int replay_stream(FILE *stream, size_t size_bytes)
{
    uint8_t *bytes = malloc(size_bytes > 0 ? size_bytes : 1);
    if (bytes == NULL)
        return -ENOMEM;
    if (fread(bytes, 1, size_bytes, stream) != size_bytes) {
        free(bytes);
        return -EIO;
    }
    (void)LLVMFuzzerTestOneInput(bytes, size_bytes);
    free(bytes);
    return 0;
}

static int replay_file(const char *path, size_t size_bytes)
{
    FILE *stream = fopen(path, "rb");
    if (stream == NULL)
        return -errno;
    int result = replay_stream(stream, size_bytes);
    (void)fclose(stream);
    return result;
}

static int replay_path(const char *path, size_t *count);

static int replay_folder(const char *path, size_t *count)
{
    DIR *folder = opendir(path);
    if (folder == NULL)
        return -errno;
    int result = 0;
    struct dirent *entry;
    while (result == 0 && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        char name[PATH_SIZE];
        int length = snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        result = length < (int)sizeof(name) ? replay_path(name, count) : -ENAMETOOLONG;
    }
    (void)closedir(folder);
    return result;
}

static int replay_path(const char *path, size_t *count)
{
    struct stat status;
    int result;
    if (stat(path, &status) != 0)
        result = -errno;
    else if (S_ISDIR(status.st_mode))
        return replay_folder(path, count);
    else
        result = replay_file(path, (size_t)status.st_size);

    if (result == 0)
        *count += 1;
    else
        (void)fprintf(stderr, "%s: %s\n", path, strerror(-result));
    return result;
}

static int default_corpus(const char *program, char *path, size_t size_bytes)
{
    const char *srcdir = getenv("srcdir");
    const char *name = strrchr(program, '/');
    name = name != NULL ? name + 1 : program;
    const char *target = strchr(name, '_');
    if (target == NULL)
        return -EINVAL;
    int length = snprintf(path, size_bytes, "%s/tests/fuzz/corpus/%s", srcdir ? srcdir : ".",
                          target + 1);
    return length < (int)size_bytes ? 0 : -ENAMETOOLONG;
}

int main(int argc, char **argv)
{
    size_t count = 0;
    int result = 0;
    if (argc > 1) {
        for (int i = 1; i < argc && result == 0; i++)
            result = replay_path(argv[i], &count);
    } else {
        char path[PATH_SIZE];
        result = default_corpus(argv[0], path, sizeof(path));
        if (result == 0)
            result = replay_path(path, &count);
    }
    if (result == 0 && count == 0) {
        (void)fprintf(stderr, "the corpus is empty\n");
        return 1;
    }
    (void)printf("%zu inputs replayed\n", count);
    return result == 0 ? 0 : 1;
}
