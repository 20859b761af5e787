/*
 * Marvin32, the checksum of a registry's transaction log entries; see hivelogs.py.
 * A shared object of one function: megabytes of logs are too many for Python under emulation.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint32_t turned(uint32_t number, int bits)
{
    return number << bits | number >> (32 - bits);
}

static void mix(uint32_t state[2], uint32_t word)
{
    uint32_t low = state[0] + word, high = state[1];

    high ^= low;
    low = turned(low, 20) + high;
    high = turned(high, 9) ^ low;
    low = turned(low, 27) + high;
    state[0] = low;
    state[1] = turned(high, 19);
}

uint64_t marvin32(const unsigned char *data, size_t length, uint64_t seed)
{
    uint32_t state[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t word;

    for (; length >= sizeof word; data += sizeof word, length -= sizeof word) {
        memcpy(&word, data, sizeof word);
        mix(state, word);
    }
    word = 0;
    memcpy(&word, data, length);
    mix(state, word | (uint32_t)0x80 << 8 * length);
    mix(state, 0);
    return (uint64_t)state[1] << 32 | state[0];
}
