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

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define network32(x) __builtin_bswap32(x)
#define network16(x) __builtin_bswap16(x)
#else
#define network32(x) (x)
#define network16(x) (x)
#endif

#define ECONNREFUSED_ 111 /* x86, arm64, riscv, s390, ppc64 */

/* Emits the instruction that loads a map's address; the loader replaces `number` by the map's descriptor. */
unsigned long long map_address(unsigned long long kind, unsigned long long number) __asm__("llvm.bpf.pseudo");
#define MAP(number) ((void *)map_address(1 /* BPF_PSEUDO_MAP_FD */, number))

static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*map_update)(
	void *map, const void *key, const void *value, __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*map_delete)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static __u32 (*random_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static __u64 (*now_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static __u64 (*socket_cookie)(void *ctx) = (void *)BPF_FUNC_get_socket_cookie;
static __u64 (*netns_cookie)(void *ctx) = (void *)BPF_FUNC_get_netns_cookie;
#ifdef HAVE_SOCKET_STORAGE
static void *(*storage_get)(
	void *map, void *socket, void *value, __u64 flags) = (void *)BPF_FUNC_sk_storage_get;
static long (*read_kernel)(void *to, __u32 bytes, const void *from) = (void *)BPF_FUNC_probe_read_kernel;
static long (*show)(void *file, const void *data, __u32 bytes) = (void *)BPF_FUNC_seq_write;
#endif
#ifdef HAVE_SET_RETVAL /* kernel 5.18 */
static int (*set_retval)(int retval) = (void *)BPF_FUNC_set_retval;
#endif

#endif
