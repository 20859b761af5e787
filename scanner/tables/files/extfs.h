/*
 * Directories and inodes of ext2, ext3 and ext4, read from the block device of a filesystem that
 * the kernel has mounted, without a system call for each of them.
 *
 * Whatever is uncommon or looks damaged is left to the kernel, which the caller can always ask
 * instead: every function says so by failing. Nothing here changes what it reads.
 *
 * Memory of the device that cannot be read raises SIGBUS, as it does below any mapping; the caller
 * holds against it.
 */
#ifndef EXTFS_H
#define EXTFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct extfs;

/* One name in a directory; the name lies in the device's memory and has no NUL at its end. */
struct extfs_name {
	uint32_t inode;
	uint8_t size;
	const char *text;
};

/* Bytes in the device's memory. */
struct extfs_bytes {
	const char *data;
	size_t size;
};

/* The filesystem on an open block device or image, or NULL for one that is left to the kernel. */
struct extfs *extfs_open(int device);

/* An inode's status but st_dev and st_rdev; 0, or -1 where the kernel is to be asked. */
int extfs_stat(const struct extfs *fs, uint32_t inode, struct stat *status);

/*
 * The names in a directory, "." and ".." left out. Each directory is given once, so that a loop
 * of them ends. Returns their number and an array to be freed, or -1 where the kernel is to be
 * asked; or EXTFS_DAMAGED where it is as well, but passes over names that cannot be made out
 * without a word.
 */
#define EXTFS_DAMAGED (-2)
int64_t extfs_names(struct extfs *fs, uint32_t inode, struct extfs_name **names);

/* Have the blocks of directories read ahead, in few large requests. */
void extfs_prefetch(struct extfs *fs, const uint32_t *inodes, size_t count);

/* A symbolic link's target; 0, or -1 where the kernel is to be asked. */
int extfs_target(const struct extfs *fs, uint32_t inode, struct extfs_bytes *target);

/*
 * An attribute of the namespace "security"; its data is NULL where the inode has none. 0, or -1
 * where the kernel is to be asked.
 */
int extfs_security(const struct extfs *fs, uint32_t inode, const char *name,
		   struct extfs_bytes *value);

#endif
