// The x86-64 instructions that load or store one integer: what compilers make of a register access.
#pragma once
#include <ucontext.h>

#include <cstdint>

namespace espalier {

struct Access {
    bool write = false, immediate = false, signExtend = false;
    unsigned bytes = 4;        // of the memory operand
    unsigned targetBytes = 4;  // of the register; 4 clears its upper half
    unsigned reg = 0;          // number of the register, 0..15
    uint64_t value = 0;        // of an immediate
    unsigned length = 0;       // of the instruction
};

// Bytes of ModRM, SIB and displacement.
inline unsigned operandLength(const uint8_t* modrm) {
    const unsigned mode = *modrm >> 6, base = *modrm & 7;
    unsigned length = 1;
    if (base == 4) length++;  // SIB
    if (mode == 1) length += 1;
    if (mode == 2 || (mode == 0 && base == 5)) length += 4;
    if (mode == 0 && base == 4 && (modrm[1] & 7) == 5) length += 4;
    return length;
}

// Fills `access`; false for any other instruction.
inline bool decode(const uint8_t* code, Access* access) {
    const uint8_t* at = code;
    bool narrow = false;
    uint8_t rex = 0;
    if (*at == 0x66) narrow = true, at++;
    if ((*at & 0xF0) == 0x40) rex = *at++;
    const unsigned word = rex & 8 ? 8 : narrow ? 2 : 4;
    bool byteRegister = false;
    access->targetBytes = word;
    unsigned immediateBytes = 0;
    switch (*at++) {
        case 0x8B: access->bytes = word; break;
        case 0x89: access->bytes = word, access->write = true; break;
        case 0x8A: access->bytes = access->targetBytes = 1, byteRegister = true; break;
        case 0x88: access->bytes = 1, access->write = byteRegister = true; break;
        case 0xC6: access->bytes = immediateBytes = 1; break;
        case 0xC7: access->bytes = word, immediateBytes = word == 2 ? 2 : 4; break;
        case 0x63: access->bytes = 4, access->signExtend = true; break;
        case 0x0F: {
            const uint8_t second = *at++;
            if ((second & 0xF6) != 0xB6) return false;  // movzx, movsx
            access->bytes = second & 1 ? 2 : 1;
            access->signExtend = second & 8;
            break;
        }
        default: return false;
    }
    access->reg = (*at >> 3 & 7) | (rex & 4) << 1;
    if (byteRegister && !rex && access->reg >= 4) return false;  // ah, ch, dh, bh
    at += operandLength(at);
    if (immediateBytes) {
        access->write = access->immediate = true;
        int32_t value = 0;
        for (unsigned i = 0; i < immediateBytes; i++) value |= int32_t(at[i]) << 8 * i;
        access->value = uint64_t(int64_t(value));
    }
    access->length = unsigned(at - code) + immediateBytes;
    return true;
}

inline greg_t* slot(const Access& access, greg_t* registers) {
    static const int names[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};
    return registers + names[access.reg];
}

inline uint64_t gather(const Access& access, greg_t* registers) {
    return uint64_t(*slot(access, registers));
}

inline void scatter(const Access& access, uint64_t value, greg_t* registers) {
    const unsigned unused = 64 - 8 * access.bytes;
    value = access.signExtend ? uint64_t(int64_t(value << unused) >> unused)
                              : value << unused >> unused;
    greg_t* target = slot(access, registers);
    if (access.targetBytes == 8) *target = greg_t(value);
    else if (access.targetBytes == 4) *target = greg_t(value & 0xFFFFFFFF);
    else {
        const uint64_t mask = (1ull << 8 * access.targetBytes) - 1;
        *target = greg_t((uint64_t(*target) & ~mask) | (value & mask));
    }
}

}  // namespace espalier
