// Loaded into a host process (LD_PRELOAD): makes the pages of the register block behave as a bus.
//
// A plain file cannot tell when it is read. So a mapping of the registers gets no access rights,
// and every load or store that the process makes there faults; the handler decodes the instruction,
// hands the access with its true width to the simulated board (wire.hpp), puts the answer where
// the instruction wanted it and goes on behind it. The process knows nothing of it. x86-64 only.
//
// Besides, mmap of the UIO device's second map gives the board's memory, and a write to one of
// u-dma-buf's sync files waits until the board has done it, as a write to sysfs does.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "decode.hpp"
#include "wire.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace espalier;

constexpr unsigned kMostRegions = 16;
constexpr unsigned kPage = 4096;

struct Region {
    uintptr_t start, size;
};

const char* root = nullptr;
Region regions[kMostRegions];
unsigned regionCount = 0;
struct sigaction previous;
std::atomic_flag turn = ATOMIC_FLAG_INIT;
int bus = -1;
pid_t owner = 0;  // a forked child gets a connection of its own

void say(const char* text) {
    const char* prefix = "simulated board: ";
    (void)!write(2, prefix, std::strlen(prefix));
    (void)!write(2, text, std::strlen(text));
    (void)!write(2, "\n", 1);
}

// What a bus error does to a process on the board.
[[noreturn]] void die(const char* text) {
    say(text);
    signal(SIGBUS, SIG_DFL);
    raise(SIGBUS);
    _exit(135);
}

void connectBus() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s%s", root, kSocket);
    bus = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (connect(bus, reinterpret_cast<sockaddr*>(&address), sizeof address))
        die("the board's process does not answer");
    owner = getpid();
}

Reply ask(const Request& request) {
    while (turn.test_and_set(std::memory_order_acquire)) {}
    if (owner != getpid()) connectBus();
    Reply reply{kNoAnswer, 0, 0};
    if (send(bus, &request, sizeof request, MSG_NOSIGNAL) != sizeof request ||
        recv(bus, &reply, sizeof reply, 0) != sizeof reply)
        die("the board's process has ended");
    turn.clear(std::memory_order_release);
    return reply;
}

void perform(const Access& access, uint32_t address, greg_t* registers) {
    const Request request{access.write ? kWrite : kRead, address, access.bytes, 0,
                          access.immediate ? access.value : gather(access, registers)};
    const Reply reply = ask(request);
    if (reply.code == kBusError) die("bus error: the slave refused an access (SLVERR)");
    if (reply.code == kNoAnswer) die("bus error: an access was never answered");
    if (!access.write) scatter(access, reply.data, registers);
}

void onFault(int number, siginfo_t* info, void* context) {
    const int saved = errno;
    const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
    greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    for (unsigned i = 0; i < regionCount; i++) {
        if (at - regions[i].start >= regions[i].size) continue;
        Access access;
        if (!decode(reinterpret_cast<const uint8_t*>(registers[REG_RIP]), &access))
            die("registers were accessed by something that is no plain load or store of at most "
                "64 bits");
        perform(access, kLightweightBase + uint32_t(at - regions[i].start), registers);
        registers[REG_RIP] += access.length;
        errno = saved;
        return;
    }
    if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(number, info, context);
    signal(SIGSEGV, SIG_DFL);  // not ours: the instruction faults again, for good
}

void* registerPages(size_t size) {
    if (regionCount == 0) {
        struct sigaction action {};
        action.sa_sigaction = onFault;
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGSEGV, &action, &previous);
    }
    if (regionCount == kMostRegions) regionCount = 0;  // long unmapped
    void* pages = reinterpret_cast<void*>(syscall(SYS_mmap, nullptr, size, PROT_NONE,
                                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    regions[regionCount++] = {reinterpret_cast<uintptr_t>(pages), size};
    return pages;
}

// Is `file` the one that lies (or whose link lies) at `name` in the board's root?
bool isFile(int file, const char* name) {
    char path[512];
    struct stat here, there;
    std::snprintf(path, sizeof path, "%s%s", root, name);
    return !fstat(file, &here) && !stat(path, &there) && here.st_ino == there.st_ino &&
           here.st_dev == there.st_dev;
}

void* mapMemory(size_t size, int protection, int flags) {
    char path[512];
    std::snprintf(path, sizeof path, "%s%s", root, kMemory);
    const int file = open(path, O_RDWR | O_CLOEXEC);
    const uint64_t base = ask({kGeometry, 0, 0, 0, 0}).data >> 32;
    void* pages = reinterpret_cast<void*>(
        syscall(SYS_mmap, nullptr, size, protection, flags, file, base));
    close(file);
    return pages;
}

void* mapFile(void* start, size_t size, int protection, int flags, int file, off_t offset) {
    if (root && file >= 0) {
        const bool uio = isFile(file, kUio);
        if (uio && offset == 0) return registerPages(size);
        if (uio) return mapMemory(size, protection, flags);
        if (offset == kLightweightBase && isFile(file, kMemory)) return registerPages(size);
    }
    return reinterpret_cast<void*>(syscall(SYS_mmap, start, size, protection, flags, file, offset));
}

ssize_t writeAt(int file, const void* data, size_t size, off_t offset) {
    for (uint32_t side = 0; root && side < 2; side++) {
        if (!isFile(file, kSyncFiles[side])) continue;
        char text[32] = {};
        std::memcpy(text, data, size < sizeof text ? size : sizeof text - 1);
        ask({kSync, side, 0, 0, std::strtoull(text, nullptr, 0)});
        return ssize_t(size);
    }
    return syscall(SYS_pwrite64, file, data, size, offset);
}

__attribute__((constructor)) void begin() { root = std::getenv("ESPALIER_BOARD"); }

}  // namespace

EXPORT void* mmap(void* start, size_t size, int protection, int flags, int file, off_t offset) {
    return mapFile(start, size, protection, flags, file, offset);
}
EXPORT void* mmap64(void* start, size_t size, int protection, int flags, int file, off_t offset) {
    return mapFile(start, size, protection, flags, file, offset);
}
EXPORT ssize_t pwrite(int file, const void* data, size_t size, off_t offset) {
    return writeAt(file, data, size, offset);
}
EXPORT ssize_t pwrite64(int file, const void* data, size_t size, off_t offset) {
    return writeAt(file, data, size, offset);
}
