/* SPDX-License-Identifier: Apache-2.0
 *
 * SCTP's checksum after a change of ports. It is a CRC32c over the whole packet (and no address), and the kernel
 * gives tc programs no way to compute one. But a CRC is linear: two packets of one length whose first word differs
 * by d have checksums that differ by d * x^(8 * length), modulo the polynomial. That takes no look at the data,
 * whatever the length, and keeps a wrong checksum wrong.
 */
#ifndef HANDOVER_SCTP_H
#define HANDOVER_SCTP_H

#include "kernel.h"

#define CRC32C 0x82f63b78U /* the polynomial, bits reversed: the highest bit is x^0 */

/*
 * 0 or 1, to multiply by. Neither the compiler nor the verifier must see what they could make a branch of, or
 * each step would double the cases.
 */
static __always_inline __u32 opaque(__u32 bit)
{
	asm volatile("" : "+r"(bit));
	return bit;
}

/* a * b modulo the polynomial. */
static __always_inline __u32 crc_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < 32; i++) {
		product ^= b * opaque(a >> 31);
		a <<= 1;
		b = (b >> 1) ^ (CRC32C * opaque(b & 1));
	}
	return product;
}

/* What the checksum changes by when `difference` is what the first word of `bytes` bytes changes by. */
static __always_inline __u32 crc_change(__u32 difference, __u32 bytes)
{
	/* x^(8 * 2^n); agent/tests/datapath computes them anew */
	const __u32 power[16] = {
		0x00800000U,
		0x00008000U,
		0x82f63b78U,
		0x6ea2d55cU,
		0x18b8ea18U,
		0x510ac59aU,
		0xb82be955U,
		0xb8fdb1e7U,
		0x88e56f72U,
		0x74c360a4U,
		0xe4172b16U,
		0x0d65762aU,
		0x35d73a62U,
		0x28461564U,
		0xbf455269U,
		0xe2ea32dcU,
	};

#pragma unroll
	for (int n = 0; n < 16; n++) {
		difference ^= opaque(bytes >> n & 1) * (difference ^ crc_multiply(power[n], difference));
	}
	return difference;
}

#endif
