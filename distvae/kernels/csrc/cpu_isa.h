// Everything that is compiled per instruction set (no include guards: cpu.cpp includes it several times).
#include "math.h"
#include "kl.h"
#include "cpu_philox.h"
#include "cpu_sample.h"
#include "cpu_mixture.h"
#include "cpu_density.h"
#include "cpu_marginals.h"
#include "cpu_joint.h"
