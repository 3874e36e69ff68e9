// DDR behind the accelerator's AXI4 port: a window between guard bytes, latency, random stalls,
// errors on demand, and a check of the master's manners.
//
// Once a clock cycle: `drive` sets what the memory offers; `sample` takes, after the inputs have
// settled and before the rising edge, what is transferred. An offer depends on earlier cycles alone
// and stays until taken.
#pragma once
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace espalier {

constexpr unsigned kBeat = 16;
constexpr unsigned kGuard = 4096;
constexpr unsigned kPage = 4096;
constexpr unsigned kLongestBurst = 16;
constexpr unsigned kOutstanding = 8;
constexpr uint8_t kGuardByte = 0xA5;
constexpr uint8_t kOkay = 0, kSlaveError = 2;
constexpr uint64_t kNever = ~0ull;

struct Random {  // xorshift64*
    uint64_t state;
    explicit Random(uint64_t seed) : state((seed * 0x9E3779B97F4A7C15ull) | 1) {}
    uint32_t next() {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return uint32_t((state * 0x2545F4914F6CDD1Dull) >> 32);
    }
    bool chance(double probability) {
        return probability > 0 && next() < probability * 4294967296.0;
    }
};

struct Written {  // one beat that the accelerator wrote; `address` is a bus address
    uint64_t address;
    uint8_t data[kBeat];
};

struct Burst {
    uint64_t address, due;  // due: first cycle in which it is answered
    unsigned beats;
    bool late;  // a write that reaches the memory only with its response
    unsigned moved = 0;
    bool failed = false;
    std::vector<Written> pending;
};

struct Offer {  // what a master held out and was not taken: it has to stay
    bool waiting = false;
    uint64_t payload = 0;
};

template <class Top> class Memory {
public:
    uint64_t failAddress = kNever;  // beats at this bus address answer with an error
    uint64_t hangCycle = kNever;    // from this cycle on nothing is accepted or answered
    uint64_t cycle = 0;
    std::vector<Written> written;
    std::string violation;  // the first breach of the protocol or the window

    Memory(Top& top, uint64_t seed, double stall, unsigned latency, uint64_t base, uint64_t size)
        : top(top), random(seed), stall(stall), latency(latency), base(base), size(size),
          bytes(size + 2 * kGuard, kGuardByte) {
        std::memset(window(), 0, size);
    }

    uint8_t* window() { return bytes.data() + kGuard; }

    bool guardsIntact() const {
        for (unsigned i = 0; i < kGuard; i++)
            if (bytes[i] != kGuardByte || bytes[kGuard + size + i] != kGuardByte) return false;
        return true;
    }

    void drive() {
        cycle++;
        top.axi___05Farready = reads.size() < kOutstanding && willing();
        top.axi___05Fawready = writes.size() < kOutstanding && willing();
        top.axi___05Fwready = data.size() < kOutstanding * kLongestBurst && willing();
        if (!readHeld && !reads.empty() && reads.front().due <= cycle && willing()) offerRead();
        if (!responseHeld && answerable() && willing()) offerResponse();
        top.axi___05Frvalid = readHeld;
        top.axi___05Fbvalid = responseHeld;
    }

    void sample() {
        checkOffers();
        if (top.axi___05Farvalid && top.axi___05Farready)
            reads.push_back(begin("read", top.axi___05Faraddr, top.axi___05Farlen,
                                  top.axi___05Farsize, top.axi___05Farburst));
        if (top.axi___05Fawvalid && top.axi___05Fawready)
            writes.push_back(begin("write", top.axi___05Fawaddr, top.axi___05Fawlen,
                                   top.axi___05Fawsize, top.axi___05Fawburst));
        if (top.axi___05Fwvalid && top.axi___05Fwready) takeData();
        matchData();
        if (readHeld && top.axi___05Frready) {
            readHeld = false;
            if (++reads.front().moved == reads.front().beats) reads.pop_front();
        }
        if (responseHeld && top.axi___05Fbready) {
            responseHeld = false;
            writes.pop_front();
        }
    }

private:
    struct Beat {
        uint8_t data[kBeat];
        bool last;
    };

    Top& top;
    Random random;
    const double stall;
    const unsigned latency;
    const uint64_t base, size;
    std::vector<uint8_t> bytes;
    std::deque<Burst> reads, writes;
    std::deque<Beat> data;  // write beats that wait for their address
    bool readHeld = false, responseHeld = false;
    Offer ar, aw, w;

    bool willing() { return cycle < hangCycle && !random.chance(stall); }

    void breach(const std::string& what, uint64_t address) {
        if (!violation.empty()) return;
        char text[160];
        std::snprintf(text, sizeof text, "%s, bus address 0x%llx, cycle %llu", what.c_str(),
                      (unsigned long long)address, (unsigned long long)cycle);
        violation = text;
    }

    Burst begin(const std::string& kind, uint64_t address, unsigned length, unsigned log2Size,
                unsigned type) {
        const unsigned beats = length + 1;
        const uint64_t end = address + uint64_t(beats) * kBeat;
        if (log2Size != 4 || type != 1) breach(kind + " burst is not 16-byte INCR", address);
        if (address % kBeat) breach(kind + " burst starts inside a beat", address);
        if (beats > kLongestBurst) breach(kind + " burst is longer than 16 beats", address);
        if (address / kPage != (end - 1) / kPage) breach(kind + " burst crosses a page", address);
        if (address < base || end > base + size) breach(kind + " burst leaves the window", address);
        return Burst{address, cycle + delay(), beats, bool(random.next() & 1)};
    }

    // Cycles from a burst to its answer: exact without stalls, else uniform around the mean.
    unsigned delay() { return stall > 0 ? random.next() % (2 * latency + 1) : latency; }

    // The bytes of a beat in the window or its guards, or null.
    uint8_t* at(uint64_t address) {
        const uint64_t offset = address - base + kGuard;
        return offset + kBeat <= bytes.size() ? bytes.data() + offset : nullptr;
    }

    void offerRead() {
        const Burst& burst = reads.front();
        const uint64_t address = burst.address + uint64_t(burst.moved) * kBeat;
        const uint8_t* source = at(address);
        if (source) std::memcpy(&top.axi___05Frdata, source, kBeat);
        top.axi___05Frresp = !source || address == failAddress ? kSlaveError : kOkay;
        top.axi___05Frlast = burst.moved + 1 == burst.beats;
        readHeld = true;
    }

    void takeData() {
        Beat beat;
        std::memcpy(beat.data, &top.axi___05Fwdata, kBeat);
        beat.last = top.axi___05Fwlast;
        if (top.axi___05Fwstrb != 0xFFFF) breach("write beat is not whole", 0);
        data.push_back(beat);
    }

    void matchData() {  // beats belong to the oldest burst that lacks some
        for (Burst& burst : writes) {
            while (burst.moved < burst.beats && !data.empty()) {
                accept(burst, data.front());
                data.pop_front();
            }
            if (burst.moved < burst.beats) return;
        }
    }

    void accept(Burst& burst, const Beat& beat) {
        const uint64_t address = burst.address + uint64_t(burst.moved++) * kBeat;
        if (beat.last != (burst.moved == burst.beats)) breach("WLAST at the wrong beat", address);
        Written one{address, {}};
        std::memcpy(one.data, beat.data, kBeat);
        if (address == failAddress || !at(address)) {
            burst.failed = true;
        } else {
            written.push_back(one);
            if (burst.late) burst.pending.push_back(one);
            else std::memcpy(at(address), one.data, kBeat);
        }
        if (burst.moved == burst.beats) burst.due = cycle + delay();
    }

    bool answerable() const {
        if (writes.empty()) return false;
        const Burst& oldest = writes.front();
        return oldest.moved == oldest.beats && oldest.due <= cycle;
    }

    void offerResponse() {
        Burst& burst = writes.front();
        for (const Written& one : burst.pending) std::memcpy(at(one.address), one.data, kBeat);
        top.axi___05Fbresp = burst.failed ? kSlaveError : kOkay;
        responseHeld = true;
    }

    void checkOffers() {
        uint64_t payload = top.axi___05Fwlast;
        for (unsigned i = 0; i < kBeat / 4; i++)
            payload = payload * 0x100000001B3ull + top.axi___05Fwdata[i];
        steady("AR", ar, top.axi___05Farvalid, top.axi___05Farready,
               uint64_t(top.axi___05Faraddr) << 8 | top.axi___05Farlen);
        steady("AW", aw, top.axi___05Fawvalid, top.axi___05Fawready,
               uint64_t(top.axi___05Fawaddr) << 8 | top.axi___05Fawlen);
        steady("W", w, top.axi___05Fwvalid, top.axi___05Fwready, payload);
    }

    void steady(const char* channel, Offer& offer, bool valid, bool ready, uint64_t payload) {
        if (offer.waiting && (!valid || payload != offer.payload))
            breach(std::string(channel) + " changed before it was taken", payload >> 8);
        offer.waiting = valid && !ready;
        offer.payload = payload;
    }
};

}  // namespace espalier
