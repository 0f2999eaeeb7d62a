/* A plugin of QEMU 4.2 to 8.2 that counts executed instructions and prints the number at the end on stderr. The
 * functions are declared here because distributions leave the header out. */
#include <stdint.h>
#include <stdio.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
typedef void (*translated)(plugin_id id, struct qemu_plugin_tb* block);
typedef void (*executed)(unsigned int cpu, void* data);
typedef void (*finished)(plugin_id id, void* data);

enum { kNoRegisters = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, translated callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb* block, executed callback, int flags, void* data);
void qemu_plugin_register_atexit_cb(plugin_id id, finished callback, void* data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t count;

static void on_executed(unsigned int cpu, void* data) {
  (void)cpu;
  count += (uintptr_t)data;
}

static void on_translated(plugin_id id, struct qemu_plugin_tb* block) {
  (void)id;
  const uintptr_t size = qemu_plugin_tb_n_insns(block);
  qemu_plugin_register_vcpu_tb_exec_cb(block, on_executed, kNoRegisters, (void*)size);
}

static void on_finished(plugin_id id, void* data) {
  (void)id;
  (void)data;
  fprintf(stderr, "%llu\n", (unsigned long long)count);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void* info, int argc,
                                                               char** argv) {
  (void)info;
  (void)argc;
  (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
  qemu_plugin_register_atexit_cb(id, on_finished, NULL);
  return 0;
}
