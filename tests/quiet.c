/* What tests/quiet puts into every process: whoever used GStreamer shuts it down at the end, once, so that the leaks tracer
 * says what is left. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Streaming threads that nobody stopped would be waited for in vain. */
enum { PATIENCE_S = 30 };
/* Threads of GStreamer let go of what they worked on a moment later, or as soon as a busy machine lets them. */
enum { MOMENT_US = 100000, MOMENTS = 50 };
/* GLib's errors and criticals: whether what is left is ours, tests/quiet says, and not the tracer's warning. */
enum { FATAL = 1 << 0 | 1 << 2 | 1 << 3 };

/* Whether a thread beside this one wants to run. */
static int is_anybody_busy(void)
{
    int busy = 0;
    struct dirent *entry;
    DIR *threads = opendir("/proc/self/task");
    while (threads != NULL && (entry = readdir(threads)) != NULL) {
        char path[64], stat[256] = "";
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == gettid())
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%.16s/stat", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL)
            continue;
        stat[fread(stat, 1, sizeof stat - 1, file)] = 0;
        fclose(file);
        /* The state stands behind the name, which may hold anything. */
        char *name_end = strrchr(stat, ')');
        busy |= name_end != NULL && (name_end[2] == 'R' || name_end[2] == 'D');
    }
    if (threads != NULL)
        closedir(threads);
    return busy;
}

/* Stands in front of GStreamer's own, which some programs call and which may be called once. */
void gst_deinit(void)
{
    static int is_done;
    void *gst = dlopen("libgstreamer-1.0.so.0", RTLD_LAZY | RTLD_NOLOAD);
    if (gst == NULL || is_done)
        return;
    int (*is_initialized)(void) = (int (*)(void))dlsym(gst, "gst_is_initialized");
    void (*deinit)(void) = (void (*)(void))dlsym(gst, "gst_deinit");
    int (*set_fatal)(int) = (int (*)(int))dlsym(gst, "g_log_set_always_fatal");
    if (is_initialized()) {
        is_done = 1;
        alarm(PATIENCE_S);
        int moments = 0;
        do
            usleep(MOMENT_US);
        while (++moments < MOMENTS && is_anybody_busy());
        set_fatal(FATAL);
        deinit();
        alarm(0);
    }
}

/* What a Python script names, its interpreter keeps until it is gone itself: of those only the warnings count. */
__attribute__((constructor)) static void at_the_start(void)
{
    if (strncmp(program_invocation_short_name, "python", 6) == 0)
        unsetenv("GST_TRACERS");
}

__attribute__((destructor)) static void at_the_end(void)
{
    gst_deinit();
}
