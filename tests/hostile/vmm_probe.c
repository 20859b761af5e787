/*
 * What a thread of QEMU's can do that a guest has taken over: loaded into a real clone's QEMU, it
 * waits for its orders in the file that QEMU's messages go to, tries what they say, and writes
 * there what worked.
 *
 * Orders are lines behind "PROBE": "set NAME VALUE", then "try NAME", then "go". Each attempt gives
 * "NAME: worked" or "NAME: <errno>", after "NAME: trying": it may be the last that is heard.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char orders[16384];

static const char *given(const char *name) {
    static char value[512];
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\nset %s ", name);
    const char *at = strstr(orders, wanted);
    if (!at)
        return "";
    at += strlen(wanted);
    size_t length = strcspn(at, "\n");
    if (length >= sizeof value)
        length = sizeof value - 1;
    memcpy(value, at, length);
    value[length] = 0;
    return value;
}

static long raw(long number, long a, long b, long c, long d, long e) {
    return syscall(number, a, b, c, d, e);
}

/* -- The network ------------------------------------------------------------------------------ */

static int tcp(const char *host, int port, int listening) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    if (!listening)
        return connect(fd, (void *)&to, sizeof to);
    return bind(fd, (void *)&to, sizeof to) || listen(fd, 1) ? -1 : 0;
}

static int connect_loopback(void) { return tcp("127.0.0.1", atoi(given("port")), 0); }
static int listen_everywhere(void) { return tcp("0.0.0.0", 0, 1); }

static int connect_abstract(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const char *name = given("abstract");
    memcpy(to.sun_path + 1, name, strlen(name));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    return connect(fd, (void *)&to, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

static int reuse_own_socket(void) { /* one that it was given, led elsewhere */
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const char *name = given("abstract");
    memcpy(to.sun_path + 1, name, strlen(name));
    for (int fd = 3; fd < 64; fd++) {
        int kind;
        socklen_t size = sizeof kind;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size))
            continue;
        if (!connect(fd, (void *)&to, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)))
            return 0;
    }
    return -1;
}

static int family(int number, int kind) { return socket(number, kind, 0) < 0 ? -1 : 0; }
static int socket_vsock(void) { return family(AF_VSOCK, SOCK_STREAM); }
static int socket_netlink(void) { return family(AF_NETLINK, SOCK_RAW); }
static int socket_unix(void) { return family(AF_UNIX, SOCK_STREAM); }
static int socket_datagram(void) { return family(AF_INET, SOCK_DGRAM); }

/* -- Files ------------------------------------------------------------------------------------ */

static int reads(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY);
    return fd < 0 || read(fd, &byte, 1) < 0 ? -1 : 0;
}

static int creates(const char *path) { return open(path, O_WRONLY | O_CREAT, 0666) < 0 ? -1 : 0; }

static int read_passwd(void) { return reads("/etc/passwd"); }
static int read_shadow(void) { return reads("/etc/shadow"); }
static int read_neighbours_image(void) { return reads(given("image")); }
static int read_home(void) { return reads(given("home")); }
static int read_appliance(void) { return reads(given("appliance")); }
static int read_facts(void) { return reads(given("facts")); }
static int read_by_root_of_init(void) { return reads("/proc/1/root/etc/passwd"); }
static int read_by_leaving(void) { return reads("../../../../../../../etc/passwd"); }
static int write_appliance(void) { return open(given("appliance"), O_WRONLY) < 0 ? -1 : 0; }
static int write_home(void) { return open(given("home"), O_WRONLY) < 0 ? -1 : 0; }
static int write_neighbours_image(void) { return open(given("image"), O_RDWR) < 0 ? -1 : 0; }
static int create_here(void) { return creates("probe"); }
static int create_in_tmp(void) { return creates("/tmp/probe"); }
static int create_in_shm(void) { return creates("/dev/shm/probe"); }
static int create_in_proc(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    return fd < 0 || write(fd, "999", 3) < 0 ? -1 : 0;
}
static int make_directory(void) { return mkdir("/probe", 0777); }

/* Each descriptor of a file that is no memory of ours, read-only as we have it. */
static int with_own_files(int (*attempt)(int fd)) {
    int found = 0;
    for (int fd = 3; fd < 256; fd++) {
        char name[64], target[512];
        struct stat status;
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(name, target, sizeof target - 1);
        if (length < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode))
            continue;
        target[length] = 0;
        if (!strncmp(target, "/memfd:", 7) || (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY)
            continue;
        found = 1;
        if (!attempt(fd))
            return 0;
    }
    if (!found)
        errno = 0; /* the test has then shown nothing */
    return -1;
}

static int opened_for_writing(int fd) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return open(name, O_RDWR) < 0 ? -1 : 0;
}
static int changed_mode(int fd) { return fchmod(fd, 0666); }
static int changed_times(int fd) { return futimens(fd, NULL); }
static int truncated(int fd) { return ftruncate(fd, 0); }
static int reopen_own_image(void) { return with_own_files(opened_for_writing); }
static int chmod_own_image(void) { return with_own_files(changed_mode); }
static int touch_own_image(void) { return with_own_files(changed_times); }
static int truncate_own_image(void) { return with_own_files(truncated); }

/* -- Amounts ---------------------------------------------------------------------------------- */

static int many_memory_files(void) {
    for (int i = 0; i < 100; i++) {
        int fd = syscall(SYS_memfd_create, "probe", 0);
        if (fd < 0 || ftruncate(fd, 4 << 20))
            return -1;
    }
    return 0;
}

static int four_gibibytes(void) {
    void *at = mmap(NULL, 4UL << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? -1 : 0;
}

static int shared_memory_segment(void) { return raw(SYS_shmget, 0, 1 << 20, 01666, 0, 0) < 0 ? -1 : 0; }

/* -- Other processes -------------------------------------------------------------------------- */

static long sibling(void) { return atol(given("sibling")); }
static int signal_sibling(void) { return kill(sibling(), 0); }
static int signal_scanner(void) { return kill(atol(given("scanner")), 0); }
static int signal_all(void) { return kill(-1, 0); }
static int signal_siblings_thread(void) { return syscall(SYS_tgkill, sibling(), sibling(), 0); }
static int pidfd_of_sibling(void) { return raw(SYS_pidfd_open, sibling(), 0, 0, 0, 0) < 0 ? -1 : 0; }

static int siblings_descriptors(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/fd/0", sibling());
    struct stat status;
    return lstat(path, &status);
}

static int see_processes(void) {
    DIR *all = opendir("/proc");
    if (!all)
        return -1;
    for (struct dirent *one; (one = readdir(all));)
        if (atol(one->d_name) > 0 && atol(one->d_name) != getpid())
            return 0;
    errno = ESRCH;
    return -1;
}

static int trace_sibling(void) { return ptrace(PTRACE_SEIZE, sibling(), 0, 0); }
static int trace_by_number(void) { return ptrace(PTRACE_SEIZE, 1, 0, 0); }
static int read_siblings_memory(void) {
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    return process_vm_readv(sibling(), &here, 1, &there, 1, 0) < 0 ? -1 : 0;
}
static int take_siblings_descriptor(void) {
    int handle = syscall(SYS_pidfd_open, sibling(), 0);
    return raw(SYS_pidfd_getfd, handle, 0, 0, 0, 0) < 0 ? -1 : 0;
}

/* -- The kernel ------------------------------------------------------------------------------- */

static int io_uring(void) {
    char parameters[256] = {0};
    return raw(SYS_io_uring_setup, 4, (long)parameters, 0, 0, 0) < 0 ? -1 : 0;
}
static int io_submit_context(void) {
    unsigned long context = 0;
    return raw(SYS_io_setup, 4, (long)&context, 0, 0, 0) < 0 ? -1 : 0;
}
static int faults_of_pages(void) { return raw(SYS_userfaultfd, 1, 0, 0, 0, 0) < 0 ? -1 : 0; }
static int watch_files(void) { return raw(SYS_inotify_init1, 0, 0, 0, 0, 0) < 0 ? -1 : 0; }
static int outlive(void) { return prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0); }
static int be_dumpable(void) { return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); }
static int raise_limits(void) {
    unsigned long most[2] = {1 << 30, 1 << 30};
    return raw(SYS_prlimit64, 0, 1 /* RLIMIT_FSIZE */, (long)most, 0, 0);
}
static int type_into_terminal(void) { return ioctl(0, 0x5412 /* TIOCSTI */, "x"); }
static int keyring(void) { return raw(SYS_keyctl, 0, -3, 1, 0, 0) < 0 ? -1 : 0; }
static int programs_in_kernel(void) { return raw(SYS_bpf, 0, 0, 0, 0, 0) < 0 && errno == EFAULT ? 0 : -1; }
static int performance(void) { return raw(SYS_perf_event_open, 0, 0, -1, -1, 0) < 0 && errno == EFAULT ? 0 : -1; }
static int new_namespaces(void) { return unshare(CLONE_NEWUSER | CLONE_NEWNET); }
static int clone_namespaces(void) {
    long child = raw(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        _exit(0);
    return child < 0 ? -1 : 0;
}
static int join_namespace(void) { return setns(open("/proc/self/ns/net", O_RDONLY), CLONE_NEWNET); }
static int mount_something(void) { return mount("none", "/", "tmpfs", 0, NULL); }
static int unmount(void) { return umount2("/proc", MNT_DETACH); }
static int change_root(void) { return chroot("/proc"); }
static int run_program(void) {
    execl("/usr/bin/qemu-system-x86_64", "qemu", "--version", NULL);
    return -1;
}
static int start_process(void) {
    long child = raw(SYS_fork, 0, 0, 0, 0, 0);
    if (child == 0)
        _exit(0);
    return child < 0 ? -1 : 0;
}
static int become_root(void) { return raw(SYS_setuid, 0, 0, 0, 0, 0); }

#define ATTEMPT(name) {#name, name}
static const struct {
    const char *name;
    int (*attempt)(void);
} attempts[] = {
    ATTEMPT(connect_loopback), ATTEMPT(listen_everywhere), ATTEMPT(connect_abstract),
    ATTEMPT(reuse_own_socket), ATTEMPT(socket_vsock), ATTEMPT(socket_netlink),
    ATTEMPT(socket_unix), ATTEMPT(socket_datagram),
    ATTEMPT(read_passwd), ATTEMPT(read_shadow), ATTEMPT(read_neighbours_image),
    ATTEMPT(read_home), ATTEMPT(read_appliance), ATTEMPT(read_facts),
    ATTEMPT(read_by_root_of_init), ATTEMPT(read_by_leaving),
    ATTEMPT(write_appliance), ATTEMPT(write_home), ATTEMPT(write_neighbours_image),
    ATTEMPT(create_here), ATTEMPT(create_in_tmp), ATTEMPT(create_in_shm),
    ATTEMPT(create_in_proc), ATTEMPT(make_directory),
    ATTEMPT(reopen_own_image), ATTEMPT(chmod_own_image), ATTEMPT(touch_own_image),
    ATTEMPT(truncate_own_image),
    ATTEMPT(many_memory_files), ATTEMPT(four_gibibytes), ATTEMPT(shared_memory_segment),
    ATTEMPT(signal_sibling), ATTEMPT(signal_scanner), ATTEMPT(signal_all),
    ATTEMPT(signal_siblings_thread), ATTEMPT(pidfd_of_sibling), ATTEMPT(siblings_descriptors),
    ATTEMPT(see_processes), ATTEMPT(io_uring), ATTEMPT(io_submit_context),
    ATTEMPT(faults_of_pages), ATTEMPT(watch_files), ATTEMPT(outlive), ATTEMPT(be_dumpable),
    ATTEMPT(raise_limits), ATTEMPT(type_into_terminal),
    ATTEMPT(trace_sibling), ATTEMPT(trace_by_number), ATTEMPT(read_siblings_memory),
    ATTEMPT(take_siblings_descriptor), ATTEMPT(keyring), ATTEMPT(programs_in_kernel),
    ATTEMPT(performance), ATTEMPT(new_namespaces), ATTEMPT(clone_namespaces),
    ATTEMPT(join_namespace), ATTEMPT(mount_something), ATTEMPT(unmount), ATTEMPT(change_root),
    ATTEMPT(run_program), ATTEMPT(start_process), ATTEMPT(become_root),
};

static void say(const char *name, const char *what) {
    char line[128];
    int length = snprintf(line, sizeof line, "%s: %s\n", name, what);
    if (write(2, line, length) != length)
        abort();
}

static void *taken_over(void *unused) {
    const char *at = NULL;
    while (!at || !strstr(at, "\ngo\n")) {
        usleep(10000);
        memset(orders, 0, sizeof orders);
        if (pread(1, orders, sizeof orders - 1, 0) > 0)
            at = strstr(orders, "PROBE\n");
    }
    lseek(2, 0, SEEK_END);
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        char wanted[64], answer[32];
        snprintf(wanted, sizeof wanted, "\ntry %s\n", attempts[i].name);
        if (!strstr(orders, wanted))
            continue;
        say(attempts[i].name, "trying");
        errno = 0;
        int failed = attempts[i].attempt();
        snprintf(answer, sizeof answer, "%d", errno);
        say(attempts[i].name, failed ? answer : "worked");
    }
    say("PROBE", "done");
    return unused;
}

__attribute__((constructor)) static void load(void) {
    char name[32] = "";
    int fd = open("/proc/self/comm", O_RDONLY);
    if (fd < 0 || read(fd, name, sizeof name - 1) < 0)
        return;
    close(fd);
    pthread_t thread;
    if (!strncmp(name, "qemu-system", 11))
        pthread_create(&thread, NULL, taken_over, NULL);
}
