// Tries what a build must not be able to do, and says of each whether it is denied.
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void try(const char *what, long result) {
	printf("%s: %s\n", what, result < 0 ? "denied" : "allowed");
}

int main(void) {
	setvbuf(stdout, NULL, _IONBF, 0);
	try("vsock", socket(40, SOCK_STREAM, 0));
	try("packet", socket(17, SOCK_RAW, 0));
	try("alg", socket(38, SOCK_SEQPACKET, 0));
	try("bluetooth", socket(31, SOCK_RAW, 0));
	try("raw", socket(AF_INET, SOCK_RAW, 1));
	try("mptcp", socket(AF_INET, SOCK_STREAM, 262));
	try("udplite", socket(AF_INET, SOCK_DGRAM, 136));
	try("audit", socket(AF_NETLINK, SOCK_RAW, 9));
	try("xfrm", socket(AF_NETLINK, SOCK_RAW, 6));
	try("modify_ldt", syscall(SYS_modify_ldt, 0, 0, 0));
	try("unshare", unshare(CLONE_NEWUSER));
	try("clone", syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0));
	try("clone3", syscall(435, 0, 0));
	try("keyctl", syscall(SYS_add_key, "user", "k", "v", 1, -2));
	try("bpf", syscall(SYS_bpf, 0, 0, 0));
	try("perf", syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
	try("userfaultfd", syscall(SYS_userfaultfd, 0));
	try("io_uring", syscall(425, 8, 0));
	try("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0));
	try("mount", syscall(SYS_mount, "x", "/tmp", "tmpfs", 0, 0));
	try("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, 0, 0));
	try("setns", syscall(SYS_setns, 0, 0));
	try("kexec", syscall(SYS_kexec_load, 0, 0, 0, 0));
#ifdef __x86_64__
	printf("32-bit\n");
	int result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory"); // getpid
	printf("went through: %d\n", result);
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(310), "b"(0x10000000) : "memory"); // unshare
	printf("went through: %d\n", result);
#endif
	return 0;
}
