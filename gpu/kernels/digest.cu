// BLAKE3 in its key-derivation mode over the blocks of a parameter, as src/digest.rs defines them, so that weights stay on
// the device: first every kibibyte of every block by a thread of its own, then the tree over them, one thread block each.

#define LEAF_BYTES 1024
#define DIGEST_WORDS 8
#define FLAG_CHUNK_START 1u
#define FLAG_CHUNK_END 2u
#define FLAG_PARENT 4u
#define FLAG_ROOT 8u
#define FLAG_DERIVE_KEY_MATERIAL 64u

struct Digest {
  const float* elements;
  const unsigned char* header;  // what precedes the block's index
  u32* chaining;                // [blocks, 2, leaves_max, 8]
  u32* digests;                 // [blocks, 8]
  u64 blocks;
  u64 first_block;
  u64 block_elements;           // of every block but the last
  u64 len;                      // elements of all blocks
  u32 header_len;
  u32 leaves_max;
  u32 key[DIGEST_WORDS];
};

// One block's message: header, index, elements.
struct Message {
  const unsigned char* header;
  const u32* words;
  u64 index;
  u64 elements;
  u32 header_len;
};

__device__ inline Message message_of(const Digest& a, u64 block) {
  u64 start = block * a.block_elements, rest = a.len - start;
  u64 elements = rest < a.block_elements ? rest : a.block_elements;
  return {a.header, (const u32*)(a.elements + start), a.first_block + block, elements, a.header_len};
}

__device__ inline u64 length_of(const Message& m) { return m.header_len + 8 + 4 * m.elements; }

__device__ inline u32 leaves_of(const Message& m) { return (u32)((length_of(m) + LEAF_BYTES - 1) / LEAF_BYTES); }

__device__ inline u32 element_bits(const Message& m, u64 at) { return at < m.elements ? m.words[at] : 0; }

// Four bytes of the message, little-endian; zeros after its end.
__device__ inline u32 word_at(const Message& m, u64 offset) {
  u64 prefix = m.header_len + 8;
  if (offset >= prefix) {
    u64 at = (offset - prefix) / 4;
    u32 shift = (u32)((offset - prefix) % 4 * 8), low = element_bits(m, at);
    return shift == 0 ? low : low >> shift | element_bits(m, at + 1) << (32 - shift);
  }
  u32 word = 0;
  for (u32 byte = 0; byte < 4; byte++) {
    u64 at = offset + byte;
    u32 value;
    if (at < m.header_len) {
      value = m.header[at];
    } else if (at < prefix) {
      value = (u32)(m.index >> (at - m.header_len) * 8) & 0xff;
    } else {
      value = element_bits(m, (at - prefix) / 4) >> (at - prefix) % 4 * 8 & 0xff;
    }
    word |= value << byte * 8;
  }
  return word;
}

__device__ inline u32 rotated(u32 value, u32 by) { return value >> by | value << (32 - by); }

__device__ inline void mix(u32& a, u32& b, u32& c, u32& d, u32 x, u32 y) {
  a = a + b + x;
  d = rotated(d ^ a, 16);
  c = c + d;
  b = rotated(b ^ c, 12);
  a = a + b + y;
  d = rotated(d ^ a, 8);
  c = c + d;
  b = rotated(b ^ c, 7);
}

// BLAKE3's compression function; the new chaining value replaces `chain`.
__device__ inline void compress_words(u32 (&chain)[DIGEST_WORDS], u32 (&m)[16], u64 counter, u32 len, u32 flags) {
  u32 v[16] = {chain[0],    chain[1],    chain[2],    chain[3],    chain[4],     chain[5],             chain[6], chain[7],
               0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, (u32)counter, (u32)(counter >> 32), len,      flags};
#pragma unroll
  for (u32 round = 0; round < 7; round++) {
    mix(v[0], v[4], v[8], v[12], m[0], m[1]);
    mix(v[1], v[5], v[9], v[13], m[2], m[3]);
    mix(v[2], v[6], v[10], v[14], m[4], m[5]);
    mix(v[3], v[7], v[11], v[15], m[6], m[7]);
    mix(v[0], v[5], v[10], v[15], m[8], m[9]);
    mix(v[1], v[6], v[11], v[12], m[10], m[11]);
    mix(v[2], v[7], v[8], v[13], m[12], m[13]);
    mix(v[3], v[4], v[9], v[14], m[14], m[15]);
    u32 n[16] = {m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13], m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8]};
#pragma unroll
    for (u32 i = 0; i < 16; i++) m[i] = n[i];
  }
#pragma unroll
  for (u32 i = 0; i < DIGEST_WORDS; i++) chain[i] = v[i] ^ v[i + 8];
}

// Chaining values of the leaves.
extern "C" __global__ void psyche_digest_leaves(Digest a) {
  for (u64 t = GRID_START; t < a.blocks * a.leaves_max; t += GRID_STRIDE) {
    u64 block = t / a.leaves_max, leaf = t % a.leaves_max;
    Message message = message_of(a, block);
    u32 leaves = leaves_of(message);
    if (leaf >= leaves) continue;
    u64 start = leaf * LEAF_BYTES, end = start + LEAF_BYTES;
    if (end > length_of(message)) end = length_of(message);
    u32 chain[DIGEST_WORDS];
#pragma unroll
    for (u32 i = 0; i < DIGEST_WORDS; i++) chain[i] = a.key[i];
    for (u64 at = start; at < end; at += 64) {
      u32 words[16];
#pragma unroll
      for (u32 i = 0; i < 16; i++) words[i] = word_at(message, at + 4 * i);
      bool last = at + 64 >= end;
      u32 flags = FLAG_DERIVE_KEY_MATERIAL | (at == start ? FLAG_CHUNK_START : 0) | (last ? FLAG_CHUNK_END : 0) |
                  (last && leaves == 1 ? FLAG_ROOT : 0);
      compress_words(chain, words, leaf, (u32)(last ? end - at : 64), flags);
    }
    u32* out = a.chaining + (block * 2 * a.leaves_max + leaf) * DIGEST_WORDS;
#pragma unroll
    for (u32 i = 0; i < DIGEST_WORDS; i++) out[i] = chain[i];
  }
}

// The tree: neighbours are joined level by level, and one that has none goes up as it is.
extern "C" __global__ void psyche_digest_trees(Digest a) {
  for (u64 block = blockIdx.x; block < a.blocks; block += gridDim.x) {
    u32* from = a.chaining + block * 2 * a.leaves_max * DIGEST_WORDS;
    u32* to = from + a.leaves_max * DIGEST_WORDS;
    u32 count = leaves_of(message_of(a, block));
    while (count > 1) {
      u32 flags = FLAG_DERIVE_KEY_MATERIAL | FLAG_PARENT | (count == 2 ? FLAG_ROOT : 0);
      for (u32 t = threadIdx.x; t < (count + 1) / 2; t += blockDim.x) {
        const u32* pair = from + 2 * t * DIGEST_WORDS;
        u32 chain[DIGEST_WORDS];
        if (2 * t + 1 < count) {
          u32 words[16];
          for (u32 i = 0; i < 16; i++) words[i] = pair[i];
          for (u32 i = 0; i < DIGEST_WORDS; i++) chain[i] = a.key[i];
          compress_words(chain, words, 0, 64, flags);
        } else {
          for (u32 i = 0; i < DIGEST_WORDS; i++) chain[i] = pair[i];
        }
        for (u32 i = 0; i < DIGEST_WORDS; i++) to[t * DIGEST_WORDS + i] = chain[i];
      }
      __syncthreads();
      u32* swap = from;
      from = to;
      to = swap;
      count = (count + 1) / 2;
    }
    for (u32 t = threadIdx.x; t < DIGEST_WORDS; t += blockDim.x) a.digests[block * DIGEST_WORDS + t] = from[t];
  }
}
