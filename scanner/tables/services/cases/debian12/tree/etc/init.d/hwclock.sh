#!/bin/sh
### BEGIN INIT INFO
# Provides:          hwclock
# Default-Start:     S
# Short-Description: Sync hardware and system clock time.
### END INIT INFO
