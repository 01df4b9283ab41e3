// Philox on vectors: a word lives in the low half of a 64-bit lane, so that a product needs no shuffling; what the high
// halves hold in between does not matter. Two half vectors (even and odd lanes) make the words of one dv_u.

struct dv_keys {
  dv_l k0[10], k1[10];
};

DV_FN dv_keys dv_schedule(uint64_t seed) {
  dv_keys keys;
  unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    keys.k0[round] = (uint64_t)k0 - (dv_l){};
    keys.k1[round] = (uint64_t)k1 - (dv_l){};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return keys;
}

DV_FN void dv_rounds(const dv_keys& keys, dv_l* w) {
  dv_l a = w[0], b = w[1], c = w[2], d = w[3];
  const dv_l m0 = 0xD2511F53ull - (dv_l){}, m1 = 0xCD9E8D57ull - (dv_l){};
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const dv_l p0 = dv_product(m0, a), p1 = dv_product(m1, c);
    a = (p1 >> 32) ^ b ^ keys.k0[round];
    b = p1;
    c = (p0 >> 32) ^ d ^ keys.k1[round];
    d = p0;
  }
  w[0] = a, w[1] = b, w[2] = c, w[3] = d;
}

DV_FN dv_words dv_philox(const dv_keys& keys, dv_u a, unsigned b, unsigned c, dv_u d) {
  const dv_l step = (uint64_t)b - (dv_l){}, sample = (uint64_t)c - (dv_l){};
  dv_l even[4] = {(dv_l)a, step, sample, (dv_l)d};
  dv_l odd[4] = {(dv_l)a >> 32, step, sample, (dv_l)d >> 32};
  dv_rounds(keys, even);
  dv_rounds(keys, odd);
  dv_words out;
  for (int word = 0; word < 4; ++word) out.w[word] = (dv_u)((even[word] & 0xffffffffull) | (odd[word] << 32));
  return out;
}
