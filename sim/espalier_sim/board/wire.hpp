// What a host process and the simulated board say to each other: packets on a Unix socket, one
// request, one reply.
#pragma once
#include <cstdint>

namespace espalier {

enum Kind : uint32_t {
    kRead = 0,      // `bytes` at bus address `address` of the lightweight bridge
    kWrite = 1,     // the low `bytes` of `data`
    kSync = 2,      // cache maintenance: `address` 0 for the device, 1 for the CPU; u-dma-buf's `data`
    kGeometry = 3,  // reply: data = window base << 32 | window bytes
    kReport = 4,    // reply, then a packet of text: cycles, bursts, busy, first breach of a rule
    kHang = 5,      // the memory takes and answers nothing from `data` cycles on
    kForge = 6,     // reads of register `address` give `data`, as another bitstream would
    kMute = 7,      // the interrupt does not come any more
};

enum Code : uint32_t { kAnswered = 0, kBusError = 1, kNoAnswer = 2 };

struct Request {
    uint32_t kind, address, bytes, unused;
    uint64_t data;
};

struct Reply {
    uint32_t code, unused;
    uint64_t data;
};

constexpr uint32_t kLightweightBase = 0xFF200000;
constexpr const char* kSocket = "/board/bus";
constexpr const char* kUio = "/dev/uio0";
constexpr const char* kMemory = "/dev/mem";
constexpr const char* kCached = "/dev/espalier-buffer";
constexpr const char* kSyncFiles[] = {"/sys/class/u-dma-buf/espalier-buffer/sync_for_device",
                                      "/sys/class/u-dma-buf/espalier-buffer/sync_for_cpu"};

}  // namespace espalier
