// Up to four elements at a time: in one access where `vector`.
#pragma once

template <class T>
DV_FN void load(float* x, const void* from, long long at, int count, bool vector) {
  const T* source = (const T*)from + at;
  if (vector) {
    dv_four<T> four = *(const dv_four<T>*)source;
    for (int i = 0; i < 4; ++i) x[i] = dv_read(four.at[i]);
  } else {
    for (int i = 0; i < 4; ++i) x[i] = i < count ? dv_read(source[i]) : 0.0f;
  }
}

template <class T>
DV_FN void store(void* to, long long at, const float* x, int count, bool vector) {
  T* target = (T*)to + at;
  if (vector) {
    dv_four<T> four;
    for (int i = 0; i < 4; ++i) dv_write(&four.at[i], x[i]);
    dv_store((dv_four<T>*)target, four);
  } else {
    for (int i = 0; i < 4; ++i)
      if (i < count) dv_write(target + i, x[i]);
  }
}
