// The processor's side of the lightweight bridge: an AXI3 master with random pauses and a check of
// the slave's manners.
//
// Transactions are queued by `issue` and move one step in every `drive` and `sample`.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "memory.hpp"

namespace espalier {

enum BurstKind : uint8_t { kFixed = 0, kIncrementing = 1, kWrapping = 2 };

struct Transaction {
    bool write;
    uint32_t address;
    BurstKind kind = kIncrementing;
    uint8_t log2Size = 2;
    uint16_t id = 0;
    std::vector<uint32_t> data;    // a word for each beat; filled by reads
    std::vector<uint8_t> strobes;  // of writes
    unsigned offered = 0, moved = 0, response = 0;  // beats
    bool asked = false, accepted = false, done = false;  // the address: offered, taken

    Transaction(bool write, uint32_t address) : write(write), address(address) {}
};

template <class Top> class Lightweight {
public:
    std::string violation;  // the first breach

    Lightweight(Top& top, uint64_t seed, double stall)
        : top(top), random(seed), stall(stall) {}

    std::shared_ptr<Transaction> issue(Transaction transaction) {
        transaction.id = random.next() & 0xFFF;
        auto item = std::make_shared<Transaction>(std::move(transaction));
        (item->write ? writes : reads).push_back(item);
        return item;
    }

    bool idle() const { return reads.empty() && writes.empty(); }

    void drive() {
        if (!top.lw___05Farvalid) offerAddress(reads, &Lightweight::setRead);
        if (!top.lw___05Fawvalid) offerAddress(writes, &Lightweight::setWrite);
        if (!top.lw___05Fwvalid) offerData();
        top.lw___05Fbready = !random.chance(stall);
        top.lw___05Frready = !random.chance(stall);
    }

    // The settled handshakes of this cycle. What was taken is lowered before the next `drive`,
    // which may offer the next at once: back to back.
    void sample() {
        checkAnswers();
        if (top.lw___05Frvalid && top.lw___05Frready) takeRead();
        if (top.lw___05Fbvalid && top.lw___05Fbready) takeResponse();
        taken.ar = top.lw___05Farvalid && top.lw___05Farready;
        taken.aw = top.lw___05Fawvalid && top.lw___05Fawready;
        taken.w = top.lw___05Fwvalid && top.lw___05Fwready;
        if (taken.ar) accept(reads);
        if (taken.aw) accept(writes);
        if (taken.w) moveBeat();
    }

    void lower() {  // after the edge
        if (taken.ar) top.lw___05Farvalid = 0;
        if (taken.aw) top.lw___05Fawvalid = 0;
        if (taken.w) top.lw___05Fwvalid = 0;
        taken = {};
    }

private:
    using Queue = std::deque<std::shared_ptr<Transaction>>;

    Top& top;
    Random random;
    const double stall;
    Queue reads, writes;
    struct {
        bool ar = false, aw = false, w = false;
    } taken;
    Offer r, b;

    void breach(const std::string& what) {
        if (violation.empty()) violation = "lightweight bridge: " + what;
    }

    void accept(Queue& queue) {  // the one address that is offered
        for (auto& item : queue)
            if (item->asked && !item->accepted) item->accepted = true;
    }

    void moveBeat() {
        for (auto& item : writes)
            if (item->moved < item->data.size()) {
                item->moved++;
                return;
            }
    }

    void offerAddress(Queue& queue, void (Lightweight::*set)(const Transaction&)) {
        for (auto& item : queue) {
            if (item->asked) continue;
            if (random.chance(stall)) return;
            item->asked = true;
            (this->*set)(*item);
            return;
        }
    }

    void setRead(const Transaction& t) {
        top.lw___05Farid = t.id;
        top.lw___05Faraddr = t.address;
        top.lw___05Farlen = t.data.size() - 1;
        top.lw___05Farsize = t.log2Size;
        top.lw___05Farburst = t.kind;
        top.lw___05Farvalid = 1;
    }

    void setWrite(const Transaction& t) {
        top.lw___05Fawid = t.id;
        top.lw___05Fawaddr = t.address;
        top.lw___05Fawlen = t.data.size() - 1;
        top.lw___05Fawsize = t.log2Size;
        top.lw___05Fawburst = t.kind;
        top.lw___05Fawvalid = 1;
    }

    void offerData() {  // in the order of the addresses, never before its own
        for (auto& item : writes) {
            if (item->offered == item->data.size()) continue;
            if (!item->asked || random.chance(stall)) return;
            top.lw___05Fwid = item->id;
            top.lw___05Fwdata = item->data[item->offered];
            top.lw___05Fwstrb = item->strobes[item->offered];
            top.lw___05Fwlast = ++item->offered == item->data.size();
            top.lw___05Fwvalid = 1;
            return;
        }
    }

    void takeRead() {
        if (reads.empty() || !reads.front()->accepted) return breach("data that nobody asked for");
        Transaction& t = *reads.front();
        if (top.lw___05Frid != t.id) breach("RID is not the id of the oldest read");
        t.response |= top.lw___05Frresp;
        t.data[t.moved++] = top.lw___05Frdata;
        if (top.lw___05Frlast != (t.moved == t.data.size())) breach("RLAST at the wrong beat");
        if (t.moved < t.data.size()) return;
        t.done = true;
        reads.pop_front();
    }

    void takeResponse() {
        if (writes.empty() || writes.front()->moved < writes.front()->data.size())
            return breach("a response before the last beat");
        Transaction& t = *writes.front();
        if (top.lw___05Fbid != t.id) breach("BID is not the id of the oldest write");
        t.response = top.lw___05Fbresp;
        t.done = true;
        writes.pop_front();
    }

    void checkAnswers() {
        steady("R", r, top.lw___05Frvalid, top.lw___05Frready,
               uint64_t(top.lw___05Frdata) << 16 | top.lw___05Frid << 4 | top.lw___05Frresp << 1 |
                   top.lw___05Frlast);
        steady("B", b, top.lw___05Fbvalid, top.lw___05Fbready,
               uint64_t(top.lw___05Fbid) << 2 | top.lw___05Fbresp);
    }

    void steady(const char* channel, Offer& offer, bool valid, bool ready, uint64_t payload) {
        if (offer.waiting && (!valid || payload != offer.payload))
            breach(std::string(channel) + " changed before it was taken");
        offer.waiting = valid && !ready;
        offer.payload = payload;
    }
};

}  // namespace espalier
