/*
 * The walk of the files table, natively: what collect.py's walk does, row for row, at a tenth of
 * its cost under emulation. Built with the appliance and run by native.py.
 *
 * usage: walk TOP-DESCRIPTOR RARE-DESCRIPTOR < names
 *
 * The names are lines: "u ID JSON" and "g ID JSON" for owners and groups, "d NUMBER JSON" for the
 * devices that filesystems are on, "labelled" where the tree has SELinux labels, "notable" to keep
 * notable entries only. JSON texts come encoded and are passed through.
 *
 * Rows go to standard output as newline-ended JSON. Rows of files with capabilities go to the
 * rare descriptor instead, the attribute's bytes in hexadecimal: collect.py puts them into words.
 * What could not be read is told on standard error: a count, a blank, the first path and why.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define OUT_SIZE (256 * 1024)
#define PATH_LIMIT 3000 /* bytes resolved by one system call; PATH_MAX is 4096 */
#define LINK_LIMIT 65536
#define ATTRIBUTE_LIMIT 4096
#define UNSUPPORTED (-2) /* the filesystem has no such attributes */

struct name {
	uint64_t id;
	char *json;
};

struct names {
	struct name *items;
	size_t count;
	struct name *last;
};

struct pending {
	char *path;
	const char *device;
};

static struct names owners, groups, devices;
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
	}
	free(line);
	qsort(owners.items, owners.count, sizeof(struct name), by_id);
	qsort(groups.items, groups.count, sizeof(struct name), by_id);
	qsort(devices.items, devices.count, sizeof(struct name), by_id);
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

/* Write an entry's row; returns the device that it is on. */
static const char *entry(const char *path, size_t path_size, const struct stat *status, int fd,
			 const char *name, const char *device)
{
	static char target[LINK_LIMIT], label[ATTRIBUTE_LIMIT], capabilities[ATTRIBUTE_LIMIT];
	ssize_t target_size = -1, label_size = -1, capabilities_size = -1;
	mode_t mode = status->st_mode;
	const char *type = type_of(mode);

	const char *own = find_name(&devices, status->st_dev);
	if (own)
		device = own;
	if (S_ISREG(mode) && mode & 0111 && status->st_dev != without_attributes) {
		capabilities_size =
		    attribute(fd, name, path, "security.capability", capabilities);
		if (capabilities_size == UNSUPPORTED)
			without_attributes = status->st_dev;
	}
	if (S_ISLNK(mode)) {
		target_size = readlinkat(fd, name, target, sizeof(target));
		if (target_size < 0)
			note(path, errno);
	}
	if (labelled)
		label_size = attribute(fd, name, path, "security.selinux", label);
	const char *owner = find_name(&owners, status->st_uid);
	const char *group = find_name(&groups, status->st_gid);
	if (notable_only && !is_notable(path, status, owner, group, capabilities_size > 0))
		return device;

	if (capabilities_size > 0) {
		flush();
		out_fd = rare_fd;
	}
	PUT("{\"path\":\"");
	put_escaped(path, path_size);
	PUT("\",\"type\":\"");
	put_text(type);
	put_field("\",\"mode\":", mode & 07777);
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
	if (target_size >= 0) {
		PUT(",\"target\":\"");
		put_escaped(target, target_size);
		put_byte('"');
	}
	if (label_size > 0) {
		while (label_size > 0 && label[label_size - 1] == 0)
			label_size--;
		PUT(",\"selinux\":\"");
		put_escaped(label, label_size);
		put_byte('"');
	}
	if (capabilities_size > 0) {
		PUT(",\"capabilities\":\"");
		for (ssize_t i = 0; i < capabilities_size; i++) {
			char digits[3];
			snprintf(digits, sizeof(digits), "%02x", (unsigned char)capabilities[i]);
			put(digits, 2);
		}
		put_byte('"');
	}
	PUT("}\n");
	if (capabilities_size > 0) {
		flush();
		out_fd = STDOUT_FILENO;
	}
	return device;
}

/* -- directories ----------------------------------------------------------------------------- */

/* Open a directory by its path below the top, however long the path is. */
static int open_directory(int top, const char *path)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
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
		int deeper = openat(from, size ? part : ".", flags);
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

static void push(const char *path, size_t size, const char *device)
{
	if (depth == room) {
		room = room ? room * 2 : 256;
		stack = grown(stack, room * sizeof(struct pending));
	}
	stack[depth].path = memcpy(grown(NULL, size + 1), path, size + 1);
	stack[depth++].device = device;
}

static void entries(int fd, const char *path, const char *device)
{
	static char *child;
	static size_t child_room;
	size_t base = strcmp(path, "/") ? strlen(path) : 0;
	DIR *directory = fdopendir(fd);
	working = -1; /* the number may have been another directory's */
	if (!directory) {
		note(path, errno);
		close(fd);
		return;
	}
	if (child_room < base + 1 + NAME_MAX + 1) {
		child_room = (base + NAME_MAX + 2) * 2;
		child = grown(child, child_room);
	}
	memcpy(child, path, base);
	child[base] = '/';
	for (;;) {
		errno = 0;
		struct dirent *found = readdir(directory);
		if (!found) {
			if (errno)
				note(path, errno);
			break;
		}
		const char *name = found->d_name;
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		size_t size = strlen(name);
		memcpy(child + base + 1, name, size + 1);
		size += base + 1;
		struct stat status;
		if (fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
			note(child, errno);
			continue;
		}
		if (!type_of(status.st_mode)) {
			note(child, EUCLEAN);
			continue;
		}
		const char *on = entry(child, size, &status, fd, name, device);
		if (S_ISDIR(status.st_mode))
			push(child, size, on);
	}
	closedir(directory);
}

int main(int count, char **arguments)
{
	struct stat status;
	if (count != 3) {
		fprintf(stderr, "usage: walk TOP-DESCRIPTOR RARE-DESCRIPTOR\n");
		return 2;
	}
	int top = atoi(arguments[1]);
	rare_fd = atoi(arguments[2]);
	read_names();
	int fd = open_directory(top, "/");
	if (fd < 0 || fstat(fd, &status) < 0)
		die("top directory");
	const char *device = entry("/", 1, &status, fd, ".", NULL);
	close(fd);
	push("/", 1, device);
	while (depth) {
		struct pending next = stack[--depth];
		fd = open_directory(top, next.path);
		if (fd < 0)
			note(next.path, errno);
		else
			entries(fd, next.path, next.device);
		free(next.path);
	}
	flush();
	if (unreadable)
		fprintf(stderr, "%llu %s\n", (unsigned long long)unreadable, first);
	return 0;
}
