//! What stands below the options of the commands that are used most.

pub(super) const RUN: &str = "Examples:
  tripod run --rm docker.io/library/busybox echo hello
  tripod run --rm -e NAME=world -v /etc/hostname:/host:ro IMAGE sh -c 'echo $NAME; cat /host'
  tripod run --rm --network host --memory 256m --cpus 0.5 IMAGE
  tripod run -d --name web -p 8080:80 IMAGE

With --rm nothing is left of the pod, whatever happens: Ctrl-C stops it (once more kills it at once).
Without it the pod stays for `tripod logs`, `tripod inspect` and `tripod rm`; this needs a daemon: `tripod serve`.";

pub(super) const LOGS: &str = "Examples:
  tripod logs web                          all that it has said, as far as it is kept
  tripod logs -f --tail 10 web             the last 10 lines, and what comes until it ends
  tripod logs --since 10m web 2>/dev/null  what it has said on standard output in the last 10 minutes
  tripod logs --since 2026-01-31T10:00:00Z --until 2026-01-31T11:00:00Z -t web
  tripod logs --previous web               the attempt before, of a container that kubelet has started anew

What the container wrote to standard error goes to standard error. Files that kubelet has renamed and packed belong to
the log; --follow goes on in the next one. It needs no daemon once it has begun.";

pub(super) const EXEC: &str = "Examples:
  tripod exec web ls /etc                 its output as it comes
  tripod exec -it web sh                  a shell to type in; end it with `exit` or Ctrl-D
  tripod exec -i db psql < dump.sql       standard input from here, to its end
  tripod exec web sh -c 'echo $PATH'      there is no shell around the command unless you ask for one
  tripod exec -- web ls -l                all behind `--` is container, command and arguments

The exit code is the command's; 124 if --timeout was over, 125 if tripod itself failed, 127 if there is no such
program, 128+N if this one got signal N. With -t each key goes to the command, Ctrl-C too; without, Ctrl-C ends the
session, and with it the command.
Environment, user and working directory are the container's: `tripod exec web env NAME=VALUE CMD` adds to them.";

pub(super) const ATTACH: &str = "Examples:
  tripod attach web        what it says from now on; `tripod logs -f web` has what it said before, too
  tripod attach -i web     and what is typed goes to it

Ctrl-P Ctrl-Q leaves it running where a terminal is attached; otherwise Ctrl-C does. Ending standard input (Ctrl-D, or
the end of a file) ends the container's as well, if it was made for one session. When the container ends, so does
this, with its exit code.";

pub(super) const PORT_FORWARD: &str = "Examples:
  tripod port-forward web 8080:80           http://localhost:8080 leads to port 80 of the pod
  tripod port-forward web 8080:80 5432      several; the second is the same on both sides
  tripod port-forward web :80               any free port, which is said
  tripod port-forward --address 0.0.0.0 web 8080:80
                                            for other machines too: whoever reaches it is in the pod

TCP only. In the pod it leads to its loopback, so servers that listen nowhere else are reached as well. It goes on
until Ctrl-C, across restarts of the daemon; connections that are open then are lost.";
