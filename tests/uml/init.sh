#!/bin/sh
# Process 1 inside User-Mode Linux, whose root is the host's file system. FADELAB_JOB, from the
# kernel's command line, is the folder with the command to run and the modules it needs; output and exit code go there.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /run
mkdir -p /dev/shm && mount -t tmpfs tmp /dev/shm
# modprobe looks for lib/modules below a root of its own: the host's may not have the folder.
mkdir -p /run/uml/lib && ln -s /usr/lib/uml/modules /run/uml/lib/modules
for module in $(cat "$FADELAB_JOB/modules"); do
  modprobe -d /run/uml "$module" 2>>"$FADELAB_JOB/output"
done
sh "$FADELAB_JOB/command" >>"$FADELAB_JOB/output" 2>&1 </dev/null
echo $? >"$FADELAB_JOB/exit_code"
sync
echo o >/proc/sysrq-trigger
sleep 60
