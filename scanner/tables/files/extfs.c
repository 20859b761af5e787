/*
 * As extfs.h says. Sources of the format: Documentation/filesystems/ext4 of Linux 6.12, and what
 * its fs/ext4 makes of the fields (ext4.h: ext4_decode_extra_time, ext4_isize, ext4_get_link_...).
 *
 * Fields are little-endian, as is every machine that the appliance is built for.
 */
#define _GNU_SOURCE
#include "extfs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SUPERBLOCK 1024
#define MAGIC 0xef53
#define HURD 1
#define FIRST_INODE_OLD 11
#define ROOT_INODE 2

/* s_feature_incompat */
#define FILETYPE 0x2
#define RECOVER 0x4
#define EXTENTS 0x40
#define WIDE 0x80
#define MMP 0x100
#define FLEX_BG 0x200
#define EA_INODE 0x400
#define CSUM_SEED 0x2000
#define LARGEDIR 0x4000
#define INLINE_DATA 0x8000
#define ENCRYPT 0x10000
#define CASEFOLD 0x20000
#define UNDERSTOOD                                                                               \
	(FILETYPE | RECOVER | EXTENTS | WIDE | MMP | FLEX_BG | EA_INODE | CSUM_SEED | LARGEDIR |  \
	 INLINE_DATA | ENCRYPT | CASEFOLD)

/* s_feature_ro_compat */
#define HUGE_FILE 0x8
#define GROUP_CHECKSUMS (0x10 | 0x400) /* of either kind: the unused inodes are counted */

/* i_flags */
#define INODE_ENCRYPTED 0x800
#define INODE_HUGE 0x40000
#define INODE_EXTENTS 0x80000
#define INODE_EA 0x200000
#define INODE_INLINE 0x10000000

#define OLD_INODE_SIZE 128
#define INLINE_LINK 60 /* a target shorter than i_block is stored there */
#define EXTENT_MAGIC 0xf30a
#define EXTENT_DEPTH 5
#define UNWRITTEN 32768 /* lengths above it are of extents that hold nothing */
#define DIRECT_BLOCKS 12
#define DIRECTORY_LIMIT (64 << 20) /* bytes; a larger one is read by the kernel, in parts */
#define XATTR_MAGIC 0xea020000
#define XATTR_SECURITY 6
#define XATTR_BLOCK_HEADER 32
#define GAP 16 /* blocks that are read for nothing rather than by another request */

struct extfs {
	const unsigned char *map;
	uint64_t size;
	uint32_t block_size, inode_size, inodes, inodes_per_group, groups, descriptor_size;
	uint32_t incompatible, read_only_compatible, first_inode;
	uint64_t blocks;
	const unsigned char *descriptors;
	unsigned char *seen;	  /* a bit a directory that was given */
	unsigned char *requested; /* a byte a group whose inode table was asked for */
};

/* A run of blocks of a directory or link. */
struct run {
	uint64_t block;
	uint32_t count;
};

struct runs {
	struct run *items;
	size_t count, room;
	uint64_t blocks; /* in all */
};

static uint16_t le16(const unsigned char *at)
{
	return *(const uint16_t *)at;
}

static uint32_t le32(const unsigned char *at)
{
	return *(const uint32_t *)at;
}

/* -- the filesystem -------------------------------------------------------------------------- */

static int power_of_two(uint32_t value)
{
	return value && (value & (value - 1)) == 0;
}

/* Take the geometry from the superblock; -1 for what is not understood, or makes no sense. */
static int read_geometry(struct extfs *fs)
{
	const unsigned char *super = fs->map + SUPERBLOCK;
	uint32_t shift = le32(super + 0x18), first_block = le32(super + 0x14);
	uint32_t revision = le32(super + 0x4c), per_group = le32(super + 0x20);
	if (le16(super + 0x38) != MAGIC || le32(super + 0x48) == HURD || shift > 6)
		return -1;
	fs->block_size = 1024u << shift;
	fs->inodes = le32(super);
	fs->blocks = le32(super + 4);
	fs->inodes_per_group = le32(super + 0x28);
	fs->inode_size = revision ? le16(super + 0x58) : OLD_INODE_SIZE;
	fs->first_inode = revision ? le32(super + 0x54) : FIRST_INODE_OLD;
	fs->incompatible = le32(super + 0x60);
	fs->read_only_compatible = le32(super + 0x64);
	fs->descriptor_size = 32;
	if (fs->incompatible & WIDE) {
		fs->blocks |= (uint64_t)le32(super + 0x150) << 32;
		fs->descriptor_size = le16(super + 0xfe);
	}
	if (fs->incompatible & ~UNDERSTOOD || !fs->inodes || !fs->inodes_per_group || !per_group ||
	    !power_of_two(fs->inode_size) || fs->inode_size < OLD_INODE_SIZE ||
	    fs->inode_size > fs->block_size || !power_of_two(fs->descriptor_size) ||
	    fs->descriptor_size < 32 || fs->descriptor_size > fs->block_size ||
	    fs->blocks > fs->size / fs->block_size || first_block >= fs->blocks)
		return -1;
	uint64_t groups = (fs->blocks - first_block + per_group - 1) / per_group;
	uint64_t table = (uint64_t)(first_block + 1) * fs->block_size;
	if (groups * fs->inodes_per_group != fs->inodes ||
	    table + groups * fs->descriptor_size > fs->size)
		return -1;
	fs->groups = groups;
	fs->descriptors = fs->map + table;
	return 0;
}

static void release(struct extfs *fs)
{
	munmap((void *)fs->map, fs->size);
	free(fs);
}

struct extfs *extfs_open(int device)
{
	struct extfs *fs = calloc(1, sizeof(*fs));
	off_t size = lseek(device, 0, SEEK_END);
	if (!fs || size < 2 * SUPERBLOCK) {
		free(fs);
		return NULL;
	}
	fs->size = size;
	fs->map = mmap(NULL, size, PROT_READ, MAP_SHARED, device, 0);
	if (fs->map == MAP_FAILED) {
		free(fs);
		return NULL;
	}
	if (read_geometry(fs) < 0) {
		release(fs);
		return NULL;
	}
	/* Both are touched where something is found; the rest costs no memory. */
	fs->seen = calloc(1, (size_t)fs->inodes / 8 + 1);
	fs->requested = calloc(1, fs->groups);
	if (!fs->seen || !fs->requested) {
		free(fs->seen);
		free(fs->requested);
		release(fs);
		return NULL;
	}
	return fs;
}

static const unsigned char *block_at(const struct extfs *fs, uint64_t block)
{
	return block && block < fs->blocks ? fs->map + block * fs->block_size : NULL;
}

static void read_ahead(const struct extfs *fs, uint64_t start, uint64_t size)
{
	uint64_t page = sysconf(_SC_PAGESIZE), begin = start & ~(page - 1);
	if (start < fs->size)
		madvise((void *)(fs->map + begin),
			(size > fs->size - start ? fs->size - start : size) + (start - begin),
			MADV_WILLNEED);
}

/* -- inodes ---------------------------------------------------------------------------------- */

/* The inodes of a group that are in use are together: all are wanted, sooner or later. */
static void request_group(const struct extfs *fs, uint32_t group, const unsigned char *descriptor,
			  uint64_t table)
{
	uint32_t unused = le16(descriptor + 0x1c), free_inodes = le16(descriptor + 0xe);
	fs->requested[group] = 1;
	if (!(fs->read_only_compatible & GROUP_CHECKSUMS))
		return;
	if (fs->descriptor_size >= 64) {
		unused |= (uint32_t)le16(descriptor + 0x32) << 16;
		free_inodes |= (uint32_t)le16(descriptor + 0x2e) << 16;
	}
	if (unused > fs->inodes_per_group || free_inodes > fs->inodes_per_group)
		return;
	uint32_t reach = fs->inodes_per_group - unused, used = fs->inodes_per_group - free_inodes;
	if (used >= reach / 4)
		read_ahead(fs, table * fs->block_size, (uint64_t)reach * fs->inode_size);
}

/* An inode's bytes, or NULL for a number that no file can have. */
static const unsigned char *inode_at(const struct extfs *fs, uint32_t number)
{
	if ((number < fs->first_inode && number != ROOT_INODE) || number > fs->inodes)
		return NULL;
	uint32_t group = (number - 1) / fs->inodes_per_group;
	uint32_t index = (number - 1) % fs->inodes_per_group;
	const unsigned char *descriptor =
	    fs->descriptors + (size_t)group * fs->descriptor_size;
	uint64_t table = le32(descriptor + 8);
	if (fs->descriptor_size >= 64)
		table |= (uint64_t)le32(descriptor + 0x28) << 32;
	uint64_t end = (uint64_t)fs->inodes_per_group * fs->inode_size;
	if (!table || table >= fs->blocks || end > (fs->blocks - table) * fs->block_size)
		return NULL;
	if (!fs->requested[group])
		request_group(fs, group, descriptor, table);
	const unsigned char *inode =
	    fs->map + table * fs->block_size + (size_t)index * fs->inode_size;
	int in_use = le16(inode) && le16(inode + 0x1a);
	return in_use && !(le32(inode + 0x20) & INODE_EA) ? inode : NULL;
}

/* Bytes of an inode's fields, those beyond the old ones included. */
static uint32_t fields_end(const struct extfs *fs, const unsigned char *inode)
{
	if (fs->inode_size == OLD_INODE_SIZE)
		return OLD_INODE_SIZE;
	uint32_t end = OLD_INODE_SIZE + le16(inode + 0x80);
	return end <= fs->inode_size && end % 4 == 0 ? end : OLD_INODE_SIZE;
}

static struct timespec time_of(const unsigned char *inode, uint32_t end, uint32_t field,
			       uint32_t more)
{
	struct timespec time = {(int32_t)le32(inode + field), 0};
	if (more + 4 <= end) {
		uint32_t extra = le32(inode + more);
		time.tv_sec += (int64_t)(extra & 3) << 32;
		time.tv_nsec = extra >> 2;
	}
	return time;
}

static uint64_t size_of(const struct extfs *fs, const unsigned char *inode)
{
	uint64_t size = le32(inode + 4);
	if (S_ISREG(le16(inode)) || fs->incompatible & LARGEDIR)
		size |= (uint64_t)le32(inode + 0x6c) << 32;
	return size;
}

static uint64_t sectors_of(const struct extfs *fs, const unsigned char *inode)
{
	uint64_t blocks = le32(inode + 0x1c);
	if (!(fs->read_only_compatible & HUGE_FILE))
		return blocks;
	blocks |= (uint64_t)le16(inode + 0x74) << 32;
	return le32(inode + 0x20) & INODE_HUGE ? blocks * (fs->block_size / 512) : blocks;
}

int extfs_stat(const struct extfs *fs, uint32_t number, struct stat *status)
{
	const unsigned char *inode = inode_at(fs, number);
	if (!inode || le32(inode + 0x20) & INODE_INLINE)
		return -1;
	uint32_t end = fields_end(fs, inode);
	memset(status, 0, sizeof(*status));
	status->st_ino = number;
	status->st_mode = le16(inode);
	status->st_nlink = le16(inode + 0x1a);
	status->st_uid = le16(inode + 2) | (uint32_t)le16(inode + 0x78) << 16;
	status->st_gid = le16(inode + 0x18) | (uint32_t)le16(inode + 0x7a) << 16;
	status->st_size = size_of(fs, inode);
	status->st_blocks = sectors_of(fs, inode);
	status->st_atim = time_of(inode, end, 0x8, 0x8c);
	status->st_ctim = time_of(inode, end, 0xc, 0x84);
	status->st_mtim = time_of(inode, end, 0x10, 0x88);
	return status->st_size < 0 ? -1 : 0;
}

/* -- where a file's blocks are --------------------------------------------------------------- */

static int add_run(const struct extfs *fs, struct runs *runs, uint32_t logical, uint64_t block,
		   uint32_t count)
{
	if (!block || block >= fs->blocks || count > fs->blocks - block || !count)
		return -1;
	if (logical != runs->blocks) /* a hole, or out of order */
		return -1;
	runs->blocks += count;
	if (runs->blocks * fs->block_size > DIRECTORY_LIMIT)
		return -1;
	struct run *last = runs->count ? &runs->items[runs->count - 1] : NULL;
	if (last && last->block + last->count == block) {
		last->count += count;
		return 0;
	}
	if (runs->count == runs->room) {
		size_t room = runs->room ? runs->room * 2 : 16;
		struct run *items = realloc(runs->items, room * sizeof(*items));
		if (!items)
			return -1;
		runs->items = items;
		runs->room = room;
	}
	runs->items[runs->count++] = (struct run){block, count};
	return 0;
}

static int add_extents(const struct extfs *fs, struct runs *runs, const unsigned char *node,
		       size_t size, int depth)
{
	uint32_t entries = le16(node + 2);
	if (le16(node) != EXTENT_MAGIC || le16(node + 6) != depth || (entries + 1) * 12 > size)
		return -1;
	for (uint32_t i = 1; i <= entries; i++) {
		const unsigned char *entry = node + i * 12;
		if (depth) {
			uint64_t block = le32(entry + 4) | (uint64_t)le16(entry + 8) << 32;
			const unsigned char *deeper = block_at(fs, block);
			if (!deeper || add_extents(fs, runs, deeper, fs->block_size, depth - 1) < 0)
				return -1;
			continue;
		}
		uint64_t block = le32(entry + 8) | (uint64_t)le16(entry + 6) << 32;
		uint32_t count = le16(entry + 4);
		if (count > UNWRITTEN || add_run(fs, runs, le32(entry), block, count) < 0)
			return -1;
	}
	return 0;
}

/* Blocks that a block of numbers names, until as many as the file has are found. */
static int add_numbered(const struct extfs *fs, struct runs *runs, const unsigned char *numbers,
			size_t count, int depth, uint64_t wanted)
{
	for (size_t i = 0; i < count && runs->blocks < wanted; i++) {
		uint32_t block = le32(numbers + i * 4);
		if (depth) {
			const unsigned char *deeper = block_at(fs, block);
			if (!deeper || add_numbered(fs, runs, deeper, fs->block_size / 4, depth - 1,
						    wanted) < 0)
				return -1;
		} else if (add_run(fs, runs, runs->blocks, block, 1) < 0)
			return -1;
	}
	return 0;
}

/* The runs of blocks of a directory or link, without a hole; -1 where the kernel is to be asked. */
static int find_runs(const struct extfs *fs, const unsigned char *inode, struct runs *runs)
{
	uint32_t flags = le32(inode + 0x20);
	uint64_t size = size_of(fs, inode);
	uint64_t wanted = (size + fs->block_size - 1) / fs->block_size;
	const unsigned char *numbers = inode + 0x28;
	runs->count = 0;
	runs->blocks = 0;
	if (flags & (INODE_ENCRYPTED | INODE_INLINE) || !size || size > DIRECTORY_LIMIT)
		return -1;
	if (flags & INODE_EXTENTS) {
		int depth = le16(numbers + 6);
		if (depth > EXTENT_DEPTH || add_extents(fs, runs, numbers, INLINE_LINK, depth) < 0)
			return -1;
	} else {
		if (add_numbered(fs, runs, numbers, DIRECT_BLOCKS, 0, wanted) < 0)
			return -1;
		for (int depth = 1; depth <= 3; depth++)
			if (add_numbered(fs, runs, numbers + (DIRECT_BLOCKS + depth - 1) * 4, 1,
					 depth, wanted) < 0)
				return -1;
	}
	return runs->blocks == wanted ? 0 : -1;
}

/* -- directories ----------------------------------------------------------------------------- */

struct names {
	struct extfs_name *items;
	size_t count, room;
};

static int add_name(struct names *names, uint32_t inode, const char *text, uint8_t size)
{
	if (text[0] == '.' && (size == 1 || (size == 2 && text[1] == '.')))
		return 0;
	if (!size || memchr(text, '/', size) || memchr(text, 0, size))
		return -1;
	if (names->count == names->room) {
		size_t room = names->room ? names->room * 2 : 64;
		struct extfs_name *items = realloc(names->items, room * sizeof(*items));
		if (!items)
			return -1;
		names->items = items;
		names->room = room;
	}
	names->items[names->count++] = (struct extfs_name){inode, size, text};
	return 0;
}

static int add_block(const struct extfs *fs, struct names *names, const unsigned char *block)
{
	uint32_t size;
	for (uint32_t at = 0; at < fs->block_size; at += size) {
		const unsigned char *entry = block + at;
		uint32_t left = fs->block_size - at, length = entry[6];
		if (left < 8)
			return -1;
		size = le16(entry + 4);
		if (fs->block_size == 65536 && (size == 65535 || size == 0))
			size = 65536;
		if (size < 12 || size % 4 || size > left || length + 8 > size)
			return -1;
		if (!(fs->incompatible & FILETYPE) && entry[7])
			return -1;
		if (le32(entry) &&
		    add_name(names, le32(entry), (const char *)entry + 8, length) < 0)
			return -1;
	}
	return 0;
}

static int by_inode(const void *left, const void *right)
{
	uint32_t a = ((const struct extfs_name *)left)->inode;
	uint32_t b = ((const struct extfs_name *)right)->inode;
	return a < b ? -1 : a > b;
}

int64_t extfs_names(struct extfs *fs, uint32_t number, struct extfs_name **found)
{
	static struct runs runs;
	struct names names = {NULL, 0, 0};
	const unsigned char *inode = inode_at(fs, number);
	if (!inode || !S_ISDIR(le16(inode)) || fs->seen[number / 8] & 1 << number % 8 ||
	    find_runs(fs, inode, &runs) < 0)
		return -1;
	for (size_t i = 0; i < runs.count; i++)
		for (uint32_t j = 0; j < runs.items[i].count; j++)
			if (add_block(fs, &names, block_at(fs, runs.items[i].block + j)) < 0) {
				free(names.items);
				return EXTFS_DAMAGED;
			}
	fs->seen[number / 8] |= 1 << number % 8;
	qsort(names.items, names.count, sizeof(*names.items), by_inode);
	*found = names.items;
	return names.count;
}

static int by_block(const void *left, const void *right)
{
	uint64_t a = ((const struct run *)left)->block, b = ((const struct run *)right)->block;
	return a < b ? -1 : a > b;
}

void extfs_prefetch(struct extfs *fs, const uint32_t *inodes, size_t count)
{
	struct runs runs = {NULL, 0, 0, 0};
	struct runs all = {NULL, 0, 0, 0};
	for (size_t i = 0; i < count; i++) {
		const unsigned char *inode = inode_at(fs, inodes[i]);
		if (!inode || find_runs(fs, inode, &runs) < 0)
			continue;
		for (size_t j = 0; j < runs.count; j++) {
			all.blocks = 0; /* these are of many directories */
			if (add_run(fs, &all, 0, runs.items[j].block, runs.items[j].count) < 0)
				break;
		}
	}
	qsort(all.items, all.count, sizeof(*all.items), by_block);
	for (size_t i = 0; i < all.count;) {
		uint64_t start = all.items[i].block, end = start;
		for (; i < all.count && all.items[i].block <= end + GAP; i++)
			if (all.items[i].block + all.items[i].count > end)
				end = all.items[i].block + all.items[i].count;
		read_ahead(fs, start * fs->block_size, (end - start) * fs->block_size);
	}
	free(runs.items);
	free(all.items);
}

/* -- links and attributes -------------------------------------------------------------------- */

int extfs_target(const struct extfs *fs, uint32_t number, struct extfs_bytes *target)
{
	static struct runs runs;
	const unsigned char *inode = inode_at(fs, number);
	if (!inode || !S_ISLNK(le16(inode)))
		return -1;
	uint32_t flags = le32(inode + 0x20);
	uint64_t size = size_of(fs, inode);
	if (size < INLINE_LINK && !(flags & (INODE_EXTENTS | INODE_INLINE | INODE_ENCRYPTED)))
		target->data = (const char *)inode + 0x28;
	else if (size < fs->block_size && find_runs(fs, inode, &runs) == 0)
		target->data = (const char *)block_at(fs, runs.items[0].block);
	else
		return -1;
	target->size = strnlen(target->data, size);
	return target->size ? 0 : -1;
}

/* Find an attribute among entries; its value is between values and end. */
static int find_attribute(const unsigned char *entry, const unsigned char *values,
			  const unsigned char *end, const char *name, struct extfs_bytes *value)
{
	size_t wanted = strlen(name);
	while (end - entry >= 4 && le32(entry)) {
		size_t size = entry[0];
		if (end - entry < 16 + (ptrdiff_t)size)
			return -1;
		if (entry[1] == XATTR_SECURITY && size == wanted &&
		    !memcmp(entry + 16, name, wanted)) {
			uint32_t offset = le16(entry + 2), length = le32(entry + 8);
			if (le32(entry + 4) || length > (uint64_t)(end - values) ||
			    offset > (uint64_t)(end - values) - length)
				return -1;
			value->data = (const char *)values + offset;
			value->size = length;
			return 0;
		}
		entry += (16 + size + 3) & ~(size_t)3;
	}
	return 0;
}

int extfs_security(const struct extfs *fs, uint32_t number, const char *name,
		   struct extfs_bytes *value)
{
	const unsigned char *inode = inode_at(fs, number);
	value->data = NULL;
	value->size = 0;
	if (!inode)
		return -1;
	uint32_t end = fields_end(fs, inode);
	const unsigned char *inside = inode + end, *inode_end = inode + fs->inode_size;
	if (fs->inode_size > OLD_INODE_SIZE && end + 4 <= fs->inode_size &&
	    le32(inside) == XATTR_MAGIC &&
	    find_attribute(inside + 4, inside + 4, inode_end, name, value) < 0)
		return -1;
	uint64_t number_of_block = le32(inode + 0x68) | (uint64_t)le16(inode + 0x76) << 32;
	if (value->data || !number_of_block)
		return 0;
	const unsigned char *block = block_at(fs, number_of_block);
	if (!block || le32(block) != XATTR_MAGIC)
		return -1;
	return find_attribute(block + XATTR_BLOCK_HEADER, block, block + fs->block_size, name, value);
}
