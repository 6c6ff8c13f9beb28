// Properties beside the code that they are about: `p4xos switch verify` proves the assertions and
// takes the assumptions for granted, the interpreter checks both where VERIFY is defined. A compiler
// that is not told VERIFY never sees them, so they cost a switch nothing.

#ifndef SPEC_P4
#define SPEC_P4

#ifdef VERIFY
#define ASSERT(condition) assert(condition)
#define ASSUME(condition) assume(condition)
#else
#define ASSERT(condition)
#define ASSUME(condition)
#endif

#endif
