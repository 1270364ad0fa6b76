// The words of OpenCL C's library that generated kernels use; clang's own header for them is not in
// the wheel of its library. The language itself, its vectors and address spaces, is clang's.
typedef unsigned char uchar;
typedef unsigned int uint;
typedef unsigned long size_t;
typedef float float2 __attribute__((ext_vector_type(2)));
typedef float float4 __attribute__((ext_vector_type(4)));
typedef int int2 __attribute__((ext_vector_type(2)));
typedef int int4 __attribute__((ext_vector_type(4)));
typedef uchar uchar2 __attribute__((ext_vector_type(2)));
typedef uchar uchar4 __attribute__((ext_vector_type(4)));
#define WORD __attribute__((overloadable))
#define CLK_LOCAL_MEM_FENCE 1
size_t WORD get_group_id(uint);
size_t WORD get_local_id(uint);
void WORD barrier(uint);
int WORD convert_int(size_t);
float WORD convert_float(uchar);
uchar2 WORD convert_uchar2(int2);
uchar4 WORD convert_uchar4(int4);
float WORD exp(float);
float2 WORD exp(float2);
float4 WORD exp(float4);
float WORD select(float, float, int);
float2 WORD select(float2, float2, int2);
float4 WORD select(float4, float4, int4);
#define MEMORY(space)                                  \
  float2 WORD vload2(size_t, const space float*);      \
  float4 WORD vload4(size_t, const space float*);      \
  int2 WORD vload2(size_t, const space int*);          \
  int4 WORD vload4(size_t, const space int*);          \
  void WORD vstore2(float2, size_t, space float*);     \
  void WORD vstore4(float4, size_t, space float*);     \
  void WORD vstore2(int2, size_t, space int*);         \
  void WORD vstore4(int4, size_t, space int*);         \
  void WORD vstore2(uchar2, size_t, space uchar*);     \
  void WORD vstore4(uchar4, size_t, space uchar*);
MEMORY(__global)
MEMORY(__local)
MEMORY(__private)
