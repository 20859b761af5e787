/*
 * The walk of the files table, natively: what collect.py's walk does, row for row, at a tenth of
 * its cost under emulation. Built with the appliance and run by native.py.
 *
 * Directories of ext2, ext3 and ext4 are read from the block device (extfs.h), which spares a
 * system call or more for each file and the kernel's making of an inode; the kernel, which has
 * them mounted, is asked for what is left to it, and for every other filesystem.
 *
 * usage: walk TOP-DESCRIPTOR RARE-DESCRIPTOR < names
 *
 * The names are lines: "u ID JSON" and "g ID JSON" for owners and groups, "d NUMBER JSON" for the
 * devices that filesystems are on, "labelled" where the tree has SELinux labels, "notable" to keep
 * notable entries only; "x NUMBER DESCRIPTOR" for block devices that hold an ext filesystem, opened
 * for reading, and "m PATH" for directories that something is mounted on, written as in
 * proc_pid_mountinfo(5). JSON texts come encoded and are passed through.
 *
 * Rows go to standard output as newline-ended JSON. Rows of files with capabilities go to the
 * rare descriptor instead, the attribute's bytes in hexadecimal: collect.py puts them into words.
 * What could not be read is reported on standard error: a count, a blank, the first path and why.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "extfs.h"

#define OUT_SIZE (256 * 1024)
#define PATH_LIMIT 3000 /* bytes resolved by one system call; PATH_MAX is 4096 */
#define LINK_LIMIT 65536
#define ATTRIBUTE_LIMIT 4096
#define UNSUPPORTED (-2) /* the filesystem has no such attributes */
#define BATCH 256	  /* directories that are read ahead together */

struct name {
	uint64_t id;
	char *json;
};

struct names {
	struct name *items;
	size_t count;
	struct name *last;
};

/* A mounted filesystem that is read from its block device. */
struct source {
	dev_t number;
	struct extfs *fs;
};

struct pending {
	char *path;
	const char *device;
	struct source *source; /* NULL for the kernel */
	uint32_t inode;
};

/* What is known of an entry; sizes are negative for what it does not have. */
struct entry {
	struct stat status;
	ssize_t target_size, label_size, capabilities_size;
	char target[LINK_LIMIT], label[ATTRIBUTE_LIMIT], capabilities[ATTRIBUTE_LIMIT];
};

static struct names owners, groups, devices;
static struct source *sources;
static size_t source_count;
static char **mounts; /* sorted */
static size_t mount_count;
static int top;
static int labelled, notable_only;
static int working = -1; /* the open directory that is the working directory */
static uint64_t without_attributes = UINT64_MAX; /* a device whose filesystem has none */

static struct pending *stack;
static size_t depth, room;

static char out[OUT_SIZE];
static size_t used;
static int out_fd = STDOUT_FILENO, rare_fd;

static uint64_t unreadable;
static char *first;

static sigjmp_buf unreadable_memory; /* where SIGBUS leads while a device's memory is read */
static volatile sig_atomic_t guarded;

static void die(const char *doing)
{
	perror(doing);
	exit(2);
}

static void *grown(void *memory, size_t size)
{
	memory = realloc(memory, size);
	if (!memory)
		die("out of memory");
	return memory;
}

/* -- what could not be read ------------------------------------------------------------------ */

static void note(const char *path, int error)
{
	if (unreadable++ == 0 && asprintf(&first, "%s: %s", path, strerror(error)) < 0)
		die("out of memory");
}

/* -- output ---------------------------------------------------------------------------------- */

static void write_all(int fd, const char *data, size_t size)
{
	while (size) {
		ssize_t done = write(fd, data, size);
		if (done < 0)
			die("write");
		data += done;
		size -= done;
	}
}

static void flush(void)
{
	write_all(out_fd, out, used);
	used = 0;
}

static inline void put_byte(char byte)
{
	if (used == OUT_SIZE)
		flush();
	out[used++] = byte;
}

static void put(const char *text, size_t size)
{
	if (size > OUT_SIZE - used) {
		flush();
		if (size > OUT_SIZE) {
			write_all(out_fd, text, size);
			return;
		}
	}
	memcpy(out + used, text, size);
	used += size;
}

#define PUT(literal) put(literal, sizeof(literal) - 1)

static void put_text(const char *text)
{
	put(text, strlen(text));
}

static void put_number(uint64_t value)
{
	char digits[20];
	size_t start = sizeof(digits);
	do
		digits[--start] = '0' + value % 10;
	while (value /= 10);
	put(digits + start, sizeof(digits) - start);
}

/* Whole microseconds, rounded down, within the years 1 to 9999 as scanner.schema has them. */
static void put_time(struct timespec time)
{
	int64_t seconds = time.tv_sec, value;
	if (seconds < -62135596800)
		value = -62135596800000000;
	else if (seconds > 253402300799)
		value = 253402300799999999;
	else
		value = seconds * 1000000 + time.tv_nsec / 1000;
	if (value < 0) {
		put_byte('-');
		value = -value;
	}
	put_number(value);
}

static int is_hex(unsigned char byte)
{
	return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f');
}

/* Length of the UTF-8 character that begins here, 0 where none does. */
static size_t character(const unsigned char *text, size_t left)
{
	unsigned char head = text[0];
	size_t size = head < 0xc2 ? 0 : head < 0xe0 ? 2 : head < 0xf0 ? 3 : head < 0xf5 ? 4 : 0;
	if (size == 0 || size > left)
		return 0;
	for (size_t i = 1; i < size; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	if ((head == 0xe0 && text[1] < 0xa0) || (head == 0xed && text[1] >= 0xa0) ||
	    (head == 0xf0 && text[1] < 0x90) || (head == 0xf4 && text[1] >= 0x90))
		return 0;
	return size;
}

/* The inside of a JSON string, bytes that are not UTF-8 escaped as scanner.schema.escape does. */
static void put_escaped(const char *data, size_t size)
{
	static const char hex[] = "0123456789abcdef";
	const unsigned char *text = (const unsigned char *)data;
	size_t i = 0;
	while (i < size) {
		size_t plain = i;
		while (plain < size && text[plain] >= 0x20 && text[plain] < 0x80 &&
		       text[plain] != '"' && text[plain] != '\\')
			plain++;
		put(data + i, plain - i);
		i = plain;
		if (i == size)
			break;
		unsigned char byte = text[i];
		size_t length;
		if (byte == '"') {
			PUT("\\\"");
			i++;
		} else if (byte == '\\') {
			if (size - i >= 4 && text[i + 1] == 'x' && is_hex(text[i + 2]) &&
			    is_hex(text[i + 3]))
				PUT("\\\\x5c");
			else
				PUT("\\\\");
			i++;
		} else if (byte < 0x20) {
			PUT("\\u00");
			put_byte(hex[byte >> 4]);
			put_byte(hex[byte & 15]);
			i++;
		} else if ((length = character(text + i, size - i))) {
			put(data + i, length);
			i += length;
		} else {
			PUT("\\\\x");
			put_byte(hex[byte >> 4]);
			put_byte(hex[byte & 15]);
			i++;
		}
	}
}

/* -- names ----------------------------------------------------------------------------------- */

static int by_id(const void *left, const void *right)
{
	uint64_t a = ((const struct name *)left)->id, b = ((const struct name *)right)->id;
	return a < b ? -1 : a > b;
}

static void add_name(struct names *names, char *line)
{
	char *json;
	uint64_t id = strtoull(line, &json, 10);
	names->items = grown(names->items, (names->count + 1) * sizeof(struct name));
	names->items[names->count].id = id;
	names->items[names->count++].json = strdup(json + 1);
}

static const char *find_name(struct names *names, uint64_t id)
{
	struct name key = {id, NULL};
	if (names->last && names->last->id == id)
		return names->last->json;
	struct name *found =
	    bsearch(&key, names->items, names->count, sizeof(struct name), by_id);
	if (!found)
		return NULL;
	names->last = found;
	return found->json;
}

static void add_source(char *line)
{
	char *rest;
	dev_t number = strtoull(line, &rest, 10);
	struct extfs *fs = extfs_open(atoi(rest));
	if (!fs)
		return;
	sources = grown(sources, (source_count + 1) * sizeof(*sources));
	sources[source_count++] = (struct source){number, fs};
}

/* Take a path whose blanks and the like are written as three octal digits. */
static void add_mount(const char *line)
{
	char *path = grown(NULL, strlen(line) + 1), *end = path;
	while (*line)
		if (line[0] == '\\' && line[1] && line[2] && line[3]) {
			*end++ = (line[1] - '0') << 6 | (line[2] - '0') << 3 | (line[3] - '0');
			line += 4;
		} else
			*end++ = *line++;
	*end = 0;
	mounts = grown(mounts, (mount_count + 1) * sizeof(*mounts));
	mounts[mount_count++] = path;
}

static int by_text(const void *left, const void *right)
{
	return strcmp(*(char *const *)left, *(char *const *)right);
}

static int is_mount(const char *path)
{
	return bsearch(&path, mounts, mount_count, sizeof(*mounts), by_text) != NULL;
}

static struct source *source_of(dev_t number)
{
	for (size_t i = 0; i < source_count; i++)
		if (sources[i].number == number)
			return &sources[i];
	return NULL;
}

static void read_names(void)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t length;
	while ((length = getline(&line, &size, stdin)) > 0) {
		if (line[length - 1] == '\n')
			line[length - 1] = 0;
		if (!strcmp(line, "labelled"))
			labelled = 1;
		else if (!strcmp(line, "notable"))
			notable_only = 1;
		else if (line[0] == 'u')
			add_name(&owners, line + 2);
		else if (line[0] == 'g')
			add_name(&groups, line + 2);
		else if (line[0] == 'd')
			add_name(&devices, line + 2);
		else if (line[0] == 'x')
			add_source(line + 2);
		else if (line[0] == 'm')
			add_mount(line + 2);
	}
	free(line);
	qsort(owners.items, owners.count, sizeof(struct name), by_id);
	qsort(groups.items, groups.count, sizeof(struct name), by_id);
	qsort(devices.items, devices.count, sizeof(struct name), by_id);
	qsort(mounts, mount_count, sizeof(*mounts), by_text);
}

/* -- one entry ------------------------------------------------------------------------------- */

static const char *type_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return "file";
	case S_IFDIR: return "directory";
	case S_IFLNK: return "symlink";
	case S_IFCHR: return "character";
	case S_IFBLK: return "block";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	}
	return NULL;
}

static int starts(const char *text, const char *head)
{
	return strncmp(text, head, strlen(head)) == 0;
}

/* As collect.notable. */
static int is_notable(const char *path, const struct stat *status, const char *owner,
		      const char *group, int has_capabilities)
{
	mode_t mode = status->st_mode;
	if (mode & (S_ISUID | S_ISGID | S_ISVTX) || has_capabilities || !owner || !group)
		return 1;
	if (mode & S_IWOTH && !S_ISLNK(mode))
		return 1;
	if (S_ISCHR(mode) || S_ISBLK(mode) || !strcmp(path, "/etc") || !strcmp(path, "/root") ||
	    !strcmp(path, "/boot") || !strcmp(path, "/home"))
		return 1;
	if (starts(path, "/home/")) {
		int slashes = 0;
		for (const char *at = path; *at; at++)
			slashes += *at == '/';
		return slashes <= 3;
	}
	return starts(path, "/etc/") || starts(path, "/root/") || starts(path, "/boot/");
}

static ssize_t attribute(int fd, const char *name, const char *path, const char *key, char *value)
{
	/* There is no lgetxattr below a descriptor before Linux 6.13, but below the working directory;
	 * the way by /proc/self/fd costs twice as much. */
	if (fd != working && fchdir(fd) < 0) {
		note(path, errno);
		return -1;
	}
	working = fd;
	ssize_t size = lgetxattr(name, key, value, ATTRIBUTE_LIMIT);
	if (size < 0 && errno == EOPNOTSUPP)
		return UNSUPPORTED;
	if (size < 0 && errno != ENODATA)
		note(path, errno);
	return size;
}

static void put_field(const char *key, uint64_t value)
{
	put_text(key);
	put_number(value);
}

static void put_json(const char *key, const char *json)
{
	if (json) {
		put_text(key);
		put_text(json);
	}
}

static int is_program(const struct stat *status)
{
	return S_ISREG(status->st_mode) && status->st_mode & 0111;
}

/* Learn of an entry from the kernel; 0, or -1 for one that has to be passed over. */
static int ask_kernel(struct entry *entry, int fd, const char *name, const char *path)
{
	struct stat *status = &entry->status;
	if (fstatat(fd, name, status, AT_SYMLINK_NOFOLLOW) < 0) {
		note(path, errno);
		return -1;
	}
	if (!type_of(status->st_mode)) {
		note(path, EUCLEAN);
		return -1;
	}
	entry->target_size = entry->label_size = entry->capabilities_size = -1;
	if (is_program(status) && status->st_dev != without_attributes) {
		entry->capabilities_size =
		    attribute(fd, name, path, "security.capability", entry->capabilities);
		if (entry->capabilities_size == UNSUPPORTED)
			without_attributes = status->st_dev;
	}
	if (S_ISLNK(status->st_mode)) {
		entry->target_size = readlinkat(fd, name, entry->target, sizeof(entry->target));
		if (entry->target_size < 0)
			note(path, errno);
	}
	if (labelled)
		entry->label_size = attribute(fd, name, path, "security.selinux", entry->label);
	return 0;
}

/* Copy bytes out of a device's memory; their number, -1 for none, or UNSUPPORTED for too many. */
static ssize_t copied(char *copy, size_t room, const struct extfs_bytes *bytes)
{
	if (!bytes->data)
		return -1;
	if (bytes->size > room)
		return UNSUPPORTED;
	memcpy(copy, bytes->data, bytes->size);
	return bytes->size;
}

static ssize_t device_attribute(struct extfs *fs, uint32_t inode, const char *key, char *value)
{
	struct extfs_bytes bytes;
	if (extfs_security(fs, inode, key, &bytes) < 0)
		return UNSUPPORTED;
	return copied(value, ATTRIBUTE_LIMIT, &bytes);
}

/* Learn of an entry from its filesystem's block device; 0, or -1 where the kernel is to be asked. */
static int ask_device(struct entry *entry, const struct source *source, uint32_t inode)
{
	struct stat *status = &entry->status;
	struct extfs_bytes target;
	if (extfs_stat(source->fs, inode, status) < 0 || !type_of(status->st_mode))
		return -1;
	status->st_dev = source->number;
	entry->target_size = entry->label_size = entry->capabilities_size = -1;
	if (is_program(status))
		entry->capabilities_size = device_attribute(source->fs, inode, "capability",
							    entry->capabilities);
	if (S_ISLNK(status->st_mode))
		entry->target_size = extfs_target(source->fs, inode, &target) < 0
					 ? UNSUPPORTED
					 : copied(entry->target, LINK_LIMIT, &target);
	if (labelled)
		entry->label_size =
		    device_attribute(source->fs, inode, "selinux", entry->label);
	int left_to_kernel = entry->capabilities_size == UNSUPPORTED ||
			     entry->target_size == UNSUPPORTED ||
			     entry->label_size == UNSUPPORTED;
	return left_to_kernel ? -1 : 0;
}

/* Write an entry's row; returns the device that it is on. */
static const char *put_entry(const struct entry *entry, const char *path, size_t path_size,
			     const char *device)
{
	const struct stat *status = &entry->status;
	const char *own = find_name(&devices, status->st_dev);
	if (own)
		device = own;
	const char *owner = find_name(&owners, status->st_uid);
	const char *group = find_name(&groups, status->st_gid);
	int has_capabilities = entry->capabilities_size > 0;
	if (notable_only && !is_notable(path, status, owner, group, has_capabilities))
		return device;

	if (has_capabilities) {
		flush();
		out_fd = rare_fd;
	}
	PUT("{\"path\":\"");
	put_escaped(path, path_size);
	PUT("\",\"type\":\"");
	put_text(type_of(status->st_mode));
	put_field("\",\"mode\":", status->st_mode & 07777);
	put_field(",\"uid\":", status->st_uid);
	put_field(",\"gid\":", status->st_gid);
	put_json(",\"owner\":", owner);
	put_json(",\"group_name\":", group);
	put_field(",\"size\":", status->st_size);
	put_field(",\"allocated\":", (uint64_t)status->st_blocks * 512);
	put_field(",\"links\":", status->st_nlink);
	put_field(",\"inode\":", status->st_ino);
	put_json(",\"device\":", device);
	PUT(",\"accessed\":");
	put_time(status->st_atim);
	PUT(",\"modified\":");
	put_time(status->st_mtim);
	PUT(",\"changed\":");
	put_time(status->st_ctim);
	if (entry->target_size >= 0) {
		PUT(",\"target\":\"");
		put_escaped(entry->target, entry->target_size);
		put_byte('"');
	}
	if (entry->label_size > 0) {
		size_t size = entry->label_size;
		while (size > 0 && entry->label[size - 1] == 0)
			size--;
		PUT(",\"selinux\":\"");
		put_escaped(entry->label, size);
		put_byte('"');
	}
	if (has_capabilities) {
		PUT(",\"capabilities\":\"");
		for (ssize_t i = 0; i < entry->capabilities_size; i++) {
			char digits[3];
			snprintf(digits, sizeof(digits), "%02x",
				 (unsigned char)entry->capabilities[i]);
			put(digits, 2);
		}
		put_byte('"');
	}
	PUT("}\n");
	if (has_capabilities) {
		flush();
		out_fd = STDOUT_FILENO;
	}
	return device;
}

/* -- directories ----------------------------------------------------------------------------- */

static int open_below(int from, const char *path)
{
	struct open_how how = {
	    .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	return syscall(SYS_openat2, from, path, &how, sizeof(how));
}

/* Open a directory by its path below the top, however long the path is; no link is followed. */
static int open_directory(const char *path)
{
	char part[PATH_LIMIT + 1];
	int fd = -1, from = top;
	while (*path == '/')
		path++;
	for (;;) {
		size_t size = strlen(path);
		if (size > PATH_LIMIT) {
			size = PATH_LIMIT;
			while (size && path[size] != '/')
				size--;
			if (!size) {
				errno = ENAMETOOLONG;
				break;
			}
		}
		memcpy(part, path, size);
		part[size] = 0;
		int deeper = open_below(from, size ? part : ".");
		if (fd >= 0)
			close(fd);
		fd = deeper;
		if (fd < 0)
			break;
		path += size;
		if (!*path)
			return fd;
		path++;
		from = fd;
	}
	return -1;
}

/* -- the walk -------------------------------------------------------------------------------- */

static struct entry entry;

static void push(const char *path, size_t size, const char *device)
{
	if (depth == room) {
		room = room ? room * 2 : 256;
		stack = grown(stack, room * sizeof(struct pending));
	}
	stack[depth++] = (struct pending){memcpy(grown(NULL, size + 1), path, size + 1), device,
					  source_of(entry.status.st_dev), entry.status.st_ino};
}

/* Write the row of what is known of an entry; a directory is walked later. */
static void take(const char *path, size_t size, const char *device)
{
	const char *on = put_entry(&entry, path, size, device);
	if (S_ISDIR(entry.status.st_mode))
		push(path, size, on);
}

/* Room for a directory's path with any name after it; returns where the name goes. */
static size_t begin_child(const char *path, char **child)
{
	static size_t child_room;
	size_t base = strcmp(path, "/") ? strlen(path) : 0;
	if (child_room < base + 1 + NAME_MAX + 1) {
		child_room = (base + NAME_MAX + 2) * 2;
		*child = grown(*child, child_room);
	}
	memcpy(*child, path, base);
	(*child)[base] = '/';
	return base + 1;
}

static char *child;

static void read_by_kernel(const struct pending *directory)
{
	int fd = open_directory(directory->path);
	working = -1; /* a descriptor's number may have been another directory's */
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (!stream) {
		note(directory->path, errno);
		if (fd >= 0)
			close(fd);
		return;
	}
	size_t base = begin_child(directory->path, &child);
	for (;;) {
		errno = 0;
		struct dirent *found = readdir(stream);
		if (!found) {
			if (errno)
				note(directory->path, errno);
			break;
		}
		const char *name = found->d_name;
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		size_t size = strlen(name);
		memcpy(child + base, name, size + 1);
		if (ask_kernel(&entry, fd, name, child) == 0)
			take(child, base + size, directory->device);
	}
	closedir(stream);
}

static void on_unreadable_memory(int number)
{
	if (guarded)
		siglongjmp(unreadable_memory, 1);
	signal(number, SIG_DFL);
}

static int64_t names_on_device(const struct pending *directory, struct extfs_name **names)
{
	int64_t count = -1;
	if (sigsetjmp(unreadable_memory, 0) == 0) {
		guarded = 1;
		count = extfs_names(directory->source->fs, directory->inode, names);
	}
	guarded = 0;
	return count;
}

/* As ask_device, with the entry's path completed; -2 for a name that cannot be read any more. */
static int look_at(const struct extfs_name *name, const struct source *source, size_t base)
{
	volatile int outcome = -2;
	if (sigsetjmp(unreadable_memory, 0) == 0) {
		guarded = 1;
		memcpy(child + base, name->text, name->size);
		child[base + name->size] = 0;
		outcome = -1;
		if (!is_mount(child))
			outcome = ask_device(&entry, source, name->inode);
	}
	guarded = 0;
	return outcome;
}

/* Read a directory from its filesystem's block device; 0, or -1 where the kernel is to. */
static int read_by_device(const struct pending *directory)
{
	struct extfs_name *names = NULL;
	int64_t count = names_on_device(directory, &names);
	if (count == EXTFS_DAMAGED)
		note(directory->path, EUCLEAN);
	if (count < 0)
		return -1;
	int fd = -1;
	working = -1; /* a descriptor's number may have been another directory's */
	size_t base = begin_child(directory->path, &child);
	for (int64_t i = 0; i < count; i++) {
		int outcome = look_at(&names[i], directory->source, base);
		if (outcome == -2) {
			note(directory->path, EIO);
			continue;
		}
		if (outcome < 0) {
			if (fd < 0 && (fd = open_directory(directory->path)) < 0) {
				note(child, errno);
				continue;
			}
			if (ask_kernel(&entry, fd, child + base, child) < 0)
				continue;
		}
		take(child, base + names[i].size, directory->device);
	}
	if (fd >= 0)
		close(fd);
	free(names);
	return 0;
}

static void prefetch_source(const struct source *source, const uint32_t *inodes, size_t count)
{
	if (sigsetjmp(unreadable_memory, 0) == 0) {
		guarded = 1;
		extfs_prefetch(source->fs, inodes, count);
	}
	guarded = 0;
}

/* Have the directories of a batch read ahead, those of each filesystem in one go. */
static void prefetch(const struct pending *batch, size_t count)
{
	uint32_t inodes[BATCH];
	for (size_t i = 0; i < source_count; i++) {
		size_t wanted = 0;
		for (size_t j = 0; j < count; j++)
			if (batch[j].source == &sources[i])
				inodes[wanted++] = batch[j].inode;
		prefetch_source(&sources[i], inodes, wanted);
	}
}

/* Walk some of the directories that are waiting; what they hold comes before the others. */
static void walk_batch(void)
{
	static struct pending batch[BATCH];
	size_t count = depth < BATCH ? depth : BATCH;
	depth -= count;
	memcpy(batch, stack + depth, count * sizeof(struct pending));
	prefetch(batch, count);
	for (size_t i = 0; i < count; i++) {
		if (!batch[i].source || read_by_device(&batch[i]) < 0)
			read_by_kernel(&batch[i]);
		free(batch[i].path);
	}
}

int main(int count, char **arguments)
{
	if (count != 3) {
		fprintf(stderr, "usage: walk TOP-DESCRIPTOR RARE-DESCRIPTOR\n");
		return 2;
	}
	top = atoi(arguments[1]);
	rare_fd = atoi(arguments[2]);
	struct sigaction action = {.sa_handler = on_unreadable_memory, .sa_flags = SA_NODEFER};
	sigaction(SIGBUS, &action, NULL);
	read_names();
	if (ask_kernel(&entry, top, ".", "/") < 0)
		die("top directory");
	take("/", 1, NULL);
	while (depth)
		walk_batch();
	flush();
	if (unreadable)
		fprintf(stderr, "%llu %s\n", (unsigned long long)unreadable, first);
	return 0;
}
