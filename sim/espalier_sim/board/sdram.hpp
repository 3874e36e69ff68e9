// DDR behind the FPGA-to-SDRAM port (Avalon-MM, 128 bits): a window between guard pages, latency,
// random stalls, and a check of the master's manners.
//
// Once a clock cycle: `drive` sets what the port offers; `sample` takes, after the inputs have
// settled and before the rising edge, what is transferred.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>

#include "memory.hpp"

namespace espalier {

constexpr unsigned kGuardPages = 1 << 16;  // bytes on each side of the window
constexpr unsigned kMostBeats = 16;

template <class Top> class Sdram {
public:
    uint64_t hangCycle = kNever;  // from this cycle on nothing is taken or answered
    uint64_t cycle = 0, bursts = 0;
    std::string violation;  // the first breach of the protocol or the window

    // `bytes` has the window with a guard on each side; `base` is the window's bus address.
    Sdram(Top& top, uint8_t* bytes, uint64_t seed, double stall, unsigned latency, uint32_t base,
          uint32_t size)
        : top(top), bytes(bytes), random(seed), stall(stall), latency(latency), base(base),
          size(size) {
        std::memset(bytes, kGuardByte, kGuardPages);
        std::memset(bytes + kGuardPages + size, kGuardByte, kGuardPages);
    }

    void checkGuards() {
        for (unsigned i = 0; i < kGuardPages; i++) {
            if (bytes[i] != kGuardByte) return breach("guard changed", base - kGuardPages + i);
            if (bytes[kGuardPages + size + i] != kGuardByte)
                return breach("guard changed", uint64_t(base) + size + i);
        }
    }

    void breach(const std::string& what, uint64_t address) {
        if (!violation.empty()) return;
        char text[160];
        std::snprintf(text, sizeof text, "%s, bus address 0x%llx, cycle %llu", what.c_str(),
                      (unsigned long long)address, (unsigned long long)cycle);
        violation = text;
    }

    void drive() {
        cycle++;
        top.sdram___05Fwaitrequest = !willing() || reads.size() >= kOutstanding;
        const bool answer = !reads.empty() && reads.front().due <= cycle && willing();
        top.sdram___05Freaddatavalid = answer;
        if (answer) giveBeat();
    }

    void sample() {
        checkCommand();
        if (top.sdram___05Fwaitrequest) return;
        if (top.sdram___05Fread) {
            if (beatsLeft) breach("read inside a write burst", top.sdram___05Faddress);
            begin("read");
            reads.push_back({top.sdram___05Faddress, top.sdram___05Fburstcount, cycle + delay()});
        }
        if (top.sdram___05Fwrite) takeBeat();
    }

private:
    struct Read {
        uint64_t address;
        unsigned beats;
        uint64_t due;
    };

    Top& top;
    uint8_t* const bytes;
    Random random;
    const double stall;
    const unsigned latency;
    const uint32_t base, size;
    std::deque<Read> reads;
    uint64_t writeAddress = 0;
    unsigned beatsLeft = 0;
    Offer command;

    bool willing() { return cycle < hangCycle && !random.chance(stall); }

    // Cycles from a read to its first beat: exact without stalls, else uniform around the mean.
    unsigned delay() { return stall > 0 ? random.next() % (2 * latency + 1) : latency; }

    // The bytes of a beat in the window or its guards, or null.
    uint8_t* at(uint64_t address) {
        const uint64_t offset = address - base + kGuardPages;
        return offset + kBeat <= uint64_t(size) + 2 * kGuardPages ? bytes + offset : nullptr;
    }

    void begin(const char* kind) {
        const uint64_t address = top.sdram___05Faddress;
        const unsigned beats = top.sdram___05Fburstcount;
        const uint64_t end = address + uint64_t(beats) * kBeat;
        const std::string what = kind;
        bursts++;
        if (address % kBeat) breach(what + " burst starts inside a beat", address);
        if (beats < 1 || beats > kMostBeats) breach(what + " burst is not 1..16 beats", address);
        if (address < base || end > uint64_t(base) + size)
            breach(what + " burst leaves the window", address);
        if (top.sdram___05Fbyteenable != 0xFFFF) breach(what + " is not of whole beats", address);
    }

    void giveBeat() {
        Read& read = reads.front();
        const uint8_t* source = at(read.address);
        if (source) std::memcpy(&top.sdram___05Freaddata, source, kBeat);
        read.address += kBeat;
        if (--read.beats == 0) reads.pop_front();
    }

    void takeBeat() {
        if (!beatsLeft) {
            begin("write");
            writeAddress = top.sdram___05Faddress;
            beatsLeft = top.sdram___05Fburstcount;
        }
        uint8_t* target = at(writeAddress);
        uint8_t data[kBeat];
        std::memcpy(data, &top.sdram___05Fwritedata, kBeat);
        for (unsigned i = 0; target && i < kBeat; i++)
            if (top.sdram___05Fbyteenable >> i & 1) target[i] = data[i];
        writeAddress += kBeat;
        beatsLeft--;
    }

    // A command that was not taken has to stay as it is.
    void checkCommand() {
        const bool valid = top.sdram___05Fread || top.sdram___05Fwrite;
        if (top.sdram___05Fread && top.sdram___05Fwrite)
            breach("read and write at once", top.sdram___05Faddress);
        uint64_t payload = top.sdram___05Fwrite;
        payload = payload * kPrime + top.sdram___05Faddress;
        payload = payload * kPrime + top.sdram___05Fburstcount;
        for (unsigned i = 0; top.sdram___05Fwrite && i < kBeat / 4; i++)
            payload = payload * kPrime + top.sdram___05Fwritedata[i];
        if (command.waiting && (!valid || payload != command.payload))
            breach("command changed before it was taken", top.sdram___05Faddress);
        command.waiting = valid && top.sdram___05Fwaitrequest;
        command.payload = payload;
    }

    static constexpr uint64_t kPrime = 0x100000001B3ull;
};

}  // namespace espalier
