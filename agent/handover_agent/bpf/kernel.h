/* SPDX-License-Identifier: Apache-2.0
 *
 * What we take from the kernel: UAPI types and the functions (BPF helpers) that we call.
 * Declared here and not taken from BCC, so that the programs mean the same inside and outside of it.
 */
#ifndef HANDOVER_KERNEL_H
#define HANDOVER_KERNEL_H

#ifndef HANDOVER_BCC /* BCC brings the UAPI headers along */
#include <linux/bpf.h>
#include <linux/types.h>
#endif

#undef __always_inline /* of <linux/stddef.h>, which asks for less */
#define __always_inline inline __attribute__((always_inline))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define network32(x)       __builtin_bswap32(x)
#define network16(x)       __builtin_bswap16(x)
#define little_endian32(x) (x)
#else
#define network32(x)       (x)
#define network16(x)       (x)
#define little_endian32(x) __builtin_bswap32(x)
#endif

/* Let the compiler read memory again, so that it does not write all that follows once for each way that leads here. */
#define forget_registers() __asm__ volatile("" ::: "memory")

#define AF_INET_      2
#define AF_INET6_     10
#define EEXIST_       17
#define ECONNREFUSED_ 111 /* x86, arm64, riscv, s390, ppc64 */

/* What a tc program returns. To go on means: whatever else is attached there, then the stack. */
#define GO_ON (-1) /* TC_ACT_UNSPEC; tcx: next */
#define SHOT  2    /* TC_ACT_SHOT */

/*
 * Emits an instruction that loads what the loader fills in for `number`: a map's descriptor, for which the kernel puts
 * its address, or what this kernel can do (consts.h: enum ability). The verifier takes the latter for constants, and
 * does not look at what they rule out: so the programs are compiled once, and for every kernel.
 */
unsigned long long filled_in(unsigned long long kind, unsigned long long number) __asm__("llvm.bpf.pseudo");
#define MAP(number)     ((void *)filled_in(1 /* BPF_PSEUDO_MAP_FD */, number))
#define ABILITY(number) filled_in(15 /* none of the kernel's */, number)

static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*map_update)(
	void *map, const void *key, const void *value, __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*map_delete)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static long (*load_bytes)(
	const struct __sk_buff *skb, __u32 offset, void *to, __u32 bytes) = (void *)BPF_FUNC_skb_load_bytes;
static long (*load_network_bytes)(const struct __sk_buff *skb, __u32 offset, void *to, __u32 bytes,
	__u32 start) = (void *)BPF_FUNC_skb_load_bytes_relative;
static long (*store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 bytes,
	__u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static long (*make_head)(struct __sk_buff *skb, __u32 bytes, __u64 flags) = (void *)BPF_FUNC_skb_change_head;
static long (*replace_ip_sum)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to,
	__u64 flags) = (void *)BPF_FUNC_l3_csum_replace;
static long (*replace_sum)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to,
	__u64 flags) = (void *)BPF_FUNC_l4_csum_replace;
static __s64 (*difference)(const void *from, __u32 from_bytes, const void *to, __u32 to_bytes,
	__wsum seed) = (void *)BPF_FUNC_csum_diff;
static __s64 (*add_to_device_sum)(struct __sk_buff *skb, __wsum sum) = (void *)BPF_FUNC_csum_update;
static long (*fib_lookup)(
	void *ctx, struct bpf_fib_lookup *params, int bytes, __u32 flags) = (void *)BPF_FUNC_fib_lookup;
static long (*redirect)(__u32 device, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*redirect_neigh)(__u32 device, void *params, int bytes,
	__u64 flags) = (void *)BPF_FUNC_redirect_neigh; /* kernel 5.10 */
static __u32 (*random_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static __u64 (*now_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static __u64 (*socket_cookie)(void *ctx) = (void *)BPF_FUNC_get_socket_cookie;
static __u64 (*netns_cookie)(void *ctx) = (void *)BPF_FUNC_get_netns_cookie;
static long (*read_kernel)(void *to, __u32 bytes, const void *from) = (void *)BPF_FUNC_probe_read_kernel;
static int (*set_retval)(int retval) = (void *)BPF_FUNC_set_retval; /* kernel 5.18 */

#endif
