// Ulx3sFabric in Verilator behind a pseudo-terminal: the bytes that a host writes there go over the
// wires bit by bit, and back. Both directions can damage bytes, as a bad line would.
//
// The clock runs while bytes are on their way or the accelerator is busy, and stands still
// otherwise. Ends when standard input does; then says how many cycles it ran.
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>

#include "Vtop.h"
#include "memory.hpp"
#include "verilated.h"

namespace {

constexpr unsigned kFrameBits = 10;      // start, 8 of data, stop
constexpr unsigned kSliceCycles = 1000;  // between two looks at the terminal
constexpr unsigned kQuietCycles = 4000;  // without a byte or work, before the clock stands still
constexpr unsigned kBusyLight = 2;       // mask of LED 1

// Changes or loses bytes with a probability.
class BadLine {
public:
    BadLine(uint64_t seed, double damage) : random(seed), damage(damage) {}

    void pass(uint8_t byte, std::deque<uint8_t>& out) {
        if (!random.chance(damage)) out.push_back(byte);
        else if (random.next() & 1) out.push_back(byte ^ (1 << random.next() % 8));
    }

private:
    espalier::Random random;
    double damage;
};

// The host's end of the two wires.
class Wires {
public:
    std::deque<uint8_t> toBoard, fromBoard;

    Wires(Vtop& top, unsigned clocks) : top(top), clocks(clocks) { top.rx = 1; }

    bool quiet() const { return toBoard.empty() && sendLeft == 0 && receiveLeft == 0 && top.tx; }

    void step() {
        send();
        receive();
    }

private:
    Vtop& top;
    const unsigned clocks;
    unsigned sendLeft = 0, sendTimer = 0, sendBits = 0;
    unsigned receiveLeft = 0, receiveTimer = 0, receiveBits = 0;

    void send() {
        if (sendLeft == 0) {
            if (toBoard.empty()) return;
            sendBits = toBoard.front() << 1 | 1 << (kFrameBits - 1);
            toBoard.pop_front();
            sendLeft = kFrameBits;
            sendTimer = 0;
        }
        if (sendTimer == 0) {
            top.rx = sendBits & 1;
            sendBits >>= 1;
            sendTimer = clocks;
        }
        if (--sendTimer == 0) sendLeft--;
    }

    void receive() {
        if (receiveLeft == 0) {
            if (top.tx) return;
            receiveLeft = kFrameBits;
            receiveTimer = clocks / 2;
            receiveBits = 0;
        }
        if (receiveTimer-- != 0) return;
        receiveBits |= top.tx << (kFrameBits - receiveLeft);
        receiveTimer = clocks - 1;
        if (--receiveLeft == 0 && receiveBits >> (kFrameBits - 1)) {
            fromBoard.push_back(uint8_t(receiveBits >> 1));
        }
    }
};

// A raw pseudo-terminal, whose other end stays open so that hosts can come and go.
class Terminal {
public:
    Terminal() {
        master = posix_openpt(O_RDWR | O_NOCTTY);
        if (master < 0 || grantpt(master) || unlockpt(master)) fail();
        slave = open(ptsname(master), O_RDWR | O_NOCTTY);
        termios settings;
        if (slave < 0 || tcgetattr(slave, &settings)) fail();
        cfmakeraw(&settings);
        tcsetattr(slave, TCSANOW, &settings);
        fcntl(master, F_SETFL, O_NONBLOCK);
        std::puts(ptsname(master));
        std::fflush(stdout);
    }

    // False when standard input has ended. Waits up to `milliseconds` for bytes from the host.
    bool wait(int milliseconds) {
        pollfd files[] = {{master, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
        poll(files, 2, milliseconds);
        uint8_t byte;
        return !files[1].revents || read(STDIN_FILENO, &byte, 1) > 0;
    }

    void take(BadLine& line, std::deque<uint8_t>& out) {
        uint8_t bytes[4096];
        const ssize_t count = read(master, bytes, sizeof bytes);
        for (ssize_t i = 0; i < count; i++) line.pass(bytes[i], out);
    }

    void give(BadLine& line, std::deque<uint8_t>& in) {
        std::deque<uint8_t> passed;
        for (; !in.empty(); in.pop_front()) line.pass(in.front(), passed);
        for (uint8_t byte : passed)
            if (write(master, &byte, 1) != 1) return;  // nobody reads: lost, as on a real line
    }

private:
    int master, slave;

    [[noreturn]] void fail() {
        std::perror("pseudo-terminal");
        std::exit(1);
    }
};

}  // namespace

int main(int count, char** words) {
    if (count != 4) {
        std::fprintf(stderr, "usage: serial-board CLOCKS SEED DAMAGE\n");
        return 2;
    }
    const uint64_t seed = std::strtoull(words[2], nullptr, 0);
    const double damage = std::strtod(words[3], nullptr);
    VerilatedContext context;
    Vtop top(&context);
    Wires wires(top, unsigned(std::strtoul(words[1], nullptr, 0)));
    BadLine there(seed, damage), back(~seed, damage);
    uint64_t cycles = 0, quiet = 0;
    auto step = [&] {
        top.clk = 0;
        top.eval();
        wires.step();
        top.eval();
        top.clk = 1;
        top.eval();
        cycles++;
    };
    top.rst = 1;
    for (unsigned i = 0; i < 4; i++) step();
    top.rst = 0;
    Terminal terminal;
    while (terminal.wait(quiet >= kQuietCycles ? 50 : 0)) {
        terminal.take(there, wires.toBoard);
        for (unsigned i = 0; i < kSliceCycles; i++) step();
        const bool idle = wires.quiet() && !(top.leds & kBusyLight);
        quiet = idle ? quiet + kSliceCycles : 0;
        terminal.give(back, wires.fromBoard);
    }
    std::printf("%llu\n", (unsigned long long)cycles);
    top.final();
}
