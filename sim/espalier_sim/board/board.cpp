// The simulated board: clock, DDR (sdram.hpp), the processor's bridge (lightweight.hpp), the
// interrupt as a UIO device on a pseudo-terminal, and a socket on which trap.cpp in a host process
// hands over every access to the registers.
//
// Time passes while an access is under way and while the accelerator is busy, and stands still
// otherwise: an idle board costs no processor time.
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <sstream>

#include "Vtop.h"
#include "lightweight.hpp"
#include "sdram.hpp"
#include "verilated.h"
#include "wire.hpp"

namespace {

using namespace espalier;

constexpr unsigned kResetCycles = 4;
constexpr unsigned kAnswerCycles = 20000;
constexpr unsigned kSliceCycles = 256;
constexpr unsigned kGraceCycles = 64;  // from a command to the lamp that says busy
constexpr unsigned kBusyLamp = 2;      // De1SocFabric.leds, bit 1

[[noreturn]] void fail(const std::string& what) {
    std::perror(what.c_str());
    std::exit(1);
}

// `size` bytes of a file from `offset`, shared.
uint8_t* mapped(const std::string& path, uint64_t offset, uint64_t size) {
    const int file = ::open(path.c_str(), O_RDWR);
    if (file < 0) fail(path);
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, offset);
    if (memory == MAP_FAILED) fail(path);
    close(file);
    return static_cast<uint8_t*>(memory);
}

struct Settings {
    std::string root;
    uint32_t base, size;
    uint64_t seed;
    double stall;
    unsigned latency;
};

class Fabric {  // the hardware and what surrounds it, one clock cycle at a time
public:
    VerilatedContext context;
    Vtop top;
    Sdram<Vtop> sdram;
    Lightweight<Vtop> bridge;
    Random random;
    const double stall;

    explicit Fabric(const Settings& s)
        : top(&context),
          sdram(top, mapped(s.root + kMemory, s.base - kGuardPages, s.size + 2ull * kGuardPages),
                s.seed, s.stall, s.latency, s.base, s.size),
          bridge(top, ~s.seed, s.stall), random(s.seed ^ 0xB0A2D), stall(s.stall) {
        top.rst = 1;
        for (unsigned i = 0; i < kResetCycles; i++) edge();
        top.rst = 0;
    }

    bool interrupt() const { return top.__SYM__interrupt; }
    bool busy() const { return top.leds & kBusyLamp; }

    void step() {
        sdram.drive();
        bridge.drive();
        top.clk = 0;
        top.eval();
        sdram.sample();
        bridge.sample();
        top.clk = 1;
        top.eval();
        bridge.lower();
    }

    // One access of the processor, among the traffic of others.
    Code access(Transaction transaction, std::vector<uint32_t>* read = nullptr) {
        if (random.chance(stall / 4)) issueNoise();
        auto mine = bridge.issue(std::move(transaction));
        if (random.chance(stall / 4)) issueNoise();
        for (unsigned i = 0; i < kAnswerCycles; i++) {
            if (mine->done && bridge.idle()) {
                if (read) *read = mine->data;
                return mine->response ? kBusError : kAnswered;
            }
            step();
        }
        return kNoAnswer;
    }

    std::string breach() {
        sdram.checkGuards();
        return sdram.violation.empty() ? bridge.violation : sdram.violation;
    }

private:
    void edge() {
        top.clk = 0;
        top.eval();
        top.clk = 1;
        top.eval();
    }

    // Bursts without effect: reads anywhere, writes where there is no register.
    void issueNoise() {
        const bool write = random.chance(0.5);
        const unsigned beats = 1 + random.next() % 16;
        Transaction noise(write, (random.next() % 64) * 4 + (write ? 0x100 : 0));
        noise.data.assign(beats, random.next());
        noise.strobes.assign(beats, 15);
        const bool wraps = !write && (beats & (beats - 1)) == 0 && beats > 1;
        noise.kind = wraps && random.chance(0.5) ? kWrapping : kIncrementing;
        bridge.issue(std::move(noise));
    }
};

class Uio {  // a pseudo-terminal that behaves as the interrupt half of a UIO device
public:
    int master = -1;

    explicit Uio(const std::string& link) {
        termios raw{};
        cfmakeraw(&raw);
        char name[128];
        if (openpty(&master, &slave, name, &raw, nullptr)) fail("openpty");
        if (symlink(name, link.c_str())) fail(link);
    }

    void control() {  // the host wrote: 1 unmasks, 0 masks
        int32_t words[64];
        const ssize_t bytes = ::read(master, words, sizeof words);
        for (ssize_t i = 0; i < bytes / 4; i++) armed = words[i] != 0;
    }

    void mute() { muted = true; }

    void update(bool level) {  // it fires once and is masked until unmasked
        if (!armed || !level || muted) return;
        armed = false;
        count++;
        if (::write(master, &count, sizeof count) != sizeof count) fail("uio");
    }

private:
    int slave = -1;  // kept open, so that the terminal survives its readers
    bool armed = false, muted = false;
    int32_t count = 0;
};

class Server {
public:
    explicit Server(const Settings& s)
        : settings(s), fabric(s), uio(s.root + kUio),
          memory(mapped(s.root + kMemory, s.base, s.size)),
          cached(mapped(s.root + kCached, 0, s.size)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::snprintf(address.sun_path, sizeof address.sun_path, "%s%s", s.root.c_str(), kSocket);
        listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) ||
            listen(listener, 8))
            fail(address.sun_path);
    }

    [[noreturn]] void serve() {
        while (true) {
            const bool running = fabric.busy() || grace;
            std::vector<pollfd> files{{listener, POLLIN, 0}, {uio.master, POLLIN, 0}};
            for (int client : clients) files.push_back({client, POLLIN, 0});
            if (poll(files.data(), files.size(), running ? 0 : -1) < 0) fail("poll");
            if (files[1].revents) uio.control();
            for (size_t i = 2; i < files.size(); i++)
                if (files[i].revents) answer(files[i].fd);
            if (files[0].revents) clients.push_back(accept(listener, nullptr, nullptr));
            for (unsigned i = 0; running && i < kSliceCycles; i++) fabric.step();
            grace = 0;
            uio.update(fabric.interrupt());
        }
    }

private:
    const Settings settings;
    Fabric fabric;
    Uio uio;
    uint8_t* const memory;
    uint8_t* const cached;
    int listener = -1;
    unsigned grace = 0;
    std::vector<int> clients;
    std::map<uint32_t, uint32_t> forged;

    void answer(int client) {
        Request request;
        if (recv(client, &request, sizeof request, 0) != sizeof request) {
            close(client);
            std::erase(clients, client);
            return;
        }
        Reply reply{kAnswered, 0, 0};
        switch (request.kind) {
            case kRead: reply.code = read(request, &reply.data); break;
            case kWrite: reply.code = write(request); break;
            case kSync: sync(request); break;
            case kGeometry: reply.data = uint64_t(settings.base) << 32 | settings.size; break;
            case kHang: fabric.sdram.hangCycle = fabric.sdram.cycle + request.data; break;
            case kMute: uio.mute(); break;
            case kForge: forged[request.address] = request.data; break;
        }
        send(client, &reply, sizeof reply, MSG_NOSIGNAL);
        if (request.kind == kReport) report(client);
    }

    static unsigned log2(unsigned bytes) { return bytes >= 4 ? 2 : bytes / 2; }

    uint32_t read(const Request& request, uint64_t* value) {
        Transaction transaction(false, request.address - kLightweightBase);
        transaction.log2Size = log2(request.bytes);
        transaction.data.resize(request.bytes > 4 ? request.bytes / 4 : 1);
        std::vector<uint32_t> words;
        const Code code = fabric.access(std::move(transaction), &words);
        for (size_t i = words.size(); i-- > 0;) *value = *value << 32 | words[i];
        *value >>= request.address % 4 * 8;
        const auto lie = forged.find(request.address - kLightweightBase);
        if (lie != forged.end()) *value = lie->second;
        return code;
    }

    uint32_t write(const Request& request) {
        Transaction transaction(true, request.address - kLightweightBase);
        const unsigned lane = request.address % 4;
        transaction.log2Size = log2(request.bytes);
        const uint64_t data = request.data << lane * 8;
        for (unsigned done = 0; done < request.bytes; done += 4) {
            transaction.data.push_back(uint32_t(data >> done * 8));
            transaction.strobes.push_back(request.bytes >= 4 ? 15
                                                             : ((1u << request.bytes) - 1) << lane);
        }
        const Code code = fabric.access(std::move(transaction));
        grace = kGraceCycles;
        for (unsigned i = 0; i < kGraceCycles && !fabric.busy(); i++) fabric.step();
        return code;
    }

    // What dma_sync_single_for_device and _for_cpu do to a cache in which every line is present.
    void sync(const Request& request) {
        const uint64_t offset = request.data >> 32, size = request.data & 0xFFFFFFF0;
        if (offset + size > settings.size) return;
        if (request.address == 0) std::memcpy(memory + offset, cached + offset, size);
        else std::memcpy(cached + offset, memory + offset, size);
    }

    void report(int client) {
        std::ostringstream text;
        text << fabric.sdram.cycle << ' ' << fabric.sdram.bursts << ' ' << fabric.busy() << ' '
             << fabric.breach();
        const std::string line = text.str();
        send(client, line.data(), line.size(), MSG_NOSIGNAL);
    }
};

}  // namespace

int main(int count, char** words) {
    if (count != 7) {
        std::fprintf(stderr, "usage: board ROOT BASE BYTES SEED STALL LATENCY\n");
        return 2;
    }
    Settings settings{words[1],
                      uint32_t(std::strtoul(words[2], nullptr, 0)),
                      uint32_t(std::strtoul(words[3], nullptr, 0)),
                      std::strtoull(words[4], nullptr, 0),
                      std::strtod(words[5], nullptr),
                      unsigned(std::strtoul(words[6], nullptr, 0))};
    Server server(settings);
    std::puts("ready");
    std::fflush(stdout);
    server.serve();
}
