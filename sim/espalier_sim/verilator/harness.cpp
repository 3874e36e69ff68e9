// The accelerator as C functions: clock and reset, host accesses over AXI4-Lite, DDR (memory.hpp).
//
// A handle is one accelerator with its window. Handles share nothing; each is used by one thread.
#include <cstdio>

#include "Vtop.h"
#include "memory.hpp"
#include "verilated.h"

namespace {

constexpr unsigned kResetCycles = 4;
constexpr unsigned kAnswerCycles = 10000;
constexpr unsigned kPollCycles = 64;

enum Code { kDone = 0, kNoAnswer = 1, kErrorResponse = 2 };  // of a register access
enum Progress { kBusy = 0, kIdle = 1, kLost = 2 };

struct Device {
    VerilatedContext context;
    Vtop top;
    espalier::Memory<Vtop> memory;
    espalier::Random random;
    double stall;

    Device(uint64_t seed, double stall, unsigned latency, uint64_t base, uint64_t size)
        : top(&context), memory(top, seed, stall, latency, base, size), random(~seed),
          stall(stall) {
        top.rst = 1;
        for (unsigned i = 0; i < kResetCycles; i++) edge();
        top.rst = 0;
    }

    ~Device() { top.final(); }

    void settle() {
        top.clk = 0;
        top.eval();
    }

    void edge() {
        settle();
        top.clk = 1;
        top.eval();
    }

    // One cycle; `sample` sees the settled ports just before the edge.
    template <class Sample> void step(Sample sample) {
        memory.drive();
        settle();
        memory.sample();
        sample();
        top.clk = 1;
        top.eval();
    }

    void step() {
        step([] {});
    }

    Code write(uint32_t address, uint32_t value) {
        top.csr___05Fawaddr = address;
        top.csr___05Fwdata = value;
        top.csr___05Fwstrb = 15;
        bool addressDue = true, dataDue = true, answered = false;
        unsigned response = 0;
        for (unsigned i = 0; i < kAnswerCycles && !answered; i++) {
            // A valid that was offered stays: it is lowered only when taken.
            top.csr___05Fawvalid = addressDue && (top.csr___05Fawvalid || !random.chance(stall));
            top.csr___05Fwvalid = dataDue && (top.csr___05Fwvalid || !random.chance(stall));
            top.csr___05Fbready = !random.chance(stall);
            step([&] {
                if (top.csr___05Fawvalid && top.csr___05Fawready) addressDue = false;
                if (top.csr___05Fwvalid && top.csr___05Fwready) dataDue = false;
                answered = top.csr___05Fbvalid && top.csr___05Fbready;
                response = top.csr___05Fbresp;
            });
        }
        top.csr___05Fawvalid = top.csr___05Fwvalid = top.csr___05Fbready = 0;
        if (!answered) return kNoAnswer;
        return response ? kErrorResponse : kDone;
    }

    Code read(uint32_t address, uint32_t* value) {
        top.csr___05Faraddr = address;
        bool due = true, answered = false;
        unsigned response = 0;
        for (unsigned i = 0; i < kAnswerCycles && !answered; i++) {
            top.csr___05Farvalid = due && (top.csr___05Farvalid || !random.chance(stall));
            top.csr___05Frready = !random.chance(stall);
            step([&] {
                if (top.csr___05Farvalid && top.csr___05Farready) due = false;
                answered = top.csr___05Frvalid && top.csr___05Frready;
                *value = top.csr___05Frdata;
                response = top.csr___05Frresp;
            });
        }
        top.csr___05Farvalid = top.csr___05Frready = 0;
        if (!answered) return kNoAnswer;
        return response ? kErrorResponse : kDone;
    }

    Progress run(uint64_t cycles, uint32_t statusAddress, uint32_t busyMask) {
        const uint64_t end = memory.cycle + cycles;
        while (true) {
            uint32_t status;
            if (read(statusAddress, &status) != kDone) return kLost;
            if (!(status & busyMask)) return kIdle;
            if (memory.cycle >= end) return kBusy;
            for (unsigned i = 0; i < kPollCycles; i++) step();
        }
    }
};

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT Device* espalier_open(uint64_t seed, double stall, uint32_t latency, uint64_t base,
                             uint64_t size) {
    return new Device(seed, stall, latency, base, size);
}
EXPORT void espalier_close(Device* d) { delete d; }
EXPORT uint8_t* espalier_window(Device* d) { return d->memory.window(); }
EXPORT int espalier_write(Device* d, uint32_t address, uint32_t value) {
    return d->write(address, value);
}
EXPORT int espalier_read(Device* d, uint32_t address, uint32_t* value) {
    return d->read(address, value);
}
EXPORT int espalier_run(Device* d, uint64_t cycles, uint32_t statusAddress, uint32_t busyMask) {
    return d->run(cycles, statusAddress, busyMask);
}
EXPORT uint64_t espalier_cycles(Device* d) { return d->memory.cycle; }
// Verilator renames words that some C++ compilers reserve.
EXPORT int espalier_interrupt(Device* d) { return d->top.__SYM__interrupt; }
// The first breach of the bus protocol or of the window; empty when there was none.
EXPORT const char* espalier_violation(Device* d) {
    std::string& violation = d->memory.violation;
    if (violation.empty() && !d->memory.guardsIntact()) violation = "guard bytes changed";
    return violation.c_str();
}
EXPORT uint64_t espalier_written(Device* d, const espalier::Written** list) {
    *list = d->memory.written.data();
    return d->memory.written.size();
}
EXPORT void espalier_forget(Device* d) { d->memory.written.clear(); }
EXPORT void espalier_fail_at(Device* d, uint64_t address) { d->memory.failAddress = address; }
EXPORT void espalier_hang_after(Device* d, uint64_t cycles) {
    d->memory.hangCycle = cycles == espalier::kNever ? cycles : d->memory.cycle + cycles;
}
