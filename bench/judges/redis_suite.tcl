# Runs units of Redis' own test suite against a server that is there already, and tells what
# became of each test: lines of `outcome<TAB>unit<TAB>test<TAB>detail` on standard output, with
# backslash, newline, carriage return and tab written as \\, \n, \r and \t.
#
#   tclsh redis_suite.tcl SOURCE HOST PORT "FLAGS OF THE SUITE" UNIT ...
#
# SOURCE is a Redis source tree, in which nothing changes: the suite's files are read as they are.
# Where this differs from `./runtest --host`, and why:
#
#   * An error that is no failed assertion ends `./runtest` at once. Here the test has failed
#     and the next one runs (the suite's own flag --durable), and an error between two tests
#     is told ("between") and passed over.
#   * A failed test may leave its connection inside MULTI, or with replies that nobody has read.
#     The next test gets a new connection, so that it is judged by itself.
#   * `./runtest` sends FUNCTION FLUSH before each unit. A server without functions has none to
#     flush, and is not refused for it.

lassign $argv source host port flags
set units [lrange $argv 4 end]
cd $source

# All of the runner but its last statement, which begins to run.
set argv [list --host $host --port $port --durable {*}$flags]
set file [open tests/test_helper.tcl]
set runner [read $file]
close $file
set end [string last "\nif {\$::client} {" $runner]
if {$end < 0} {
    puts stderr "tests/test_helper.tcl has no last statement that starts it: is this Redis 7.0?"
    exit 2
}
eval [string range $runner 0 $end]

fconfigure stdout -encoding utf-8 -buffering line
set current_unit {}

proc tell {outcome name detail} {
    set line $outcome
    foreach field [list $::current_unit $name $detail] {
        append line \t [string map [list \\ \\\\ \n \\n \r \\r \t \\t] $field]
    }
    puts $line
}

# What the runner would send to its parent process. A failed test is one text of several lines:
# "name in file", then why.
proc send_data_packet {fd status data {elapsed 0}} {
    switch $status {
        testing {tell begun $data {}}
        ok {tell passed $data {}}
        err {
            set lines [split $data \n]
            set name [lindex $lines 0]
            regsub { in tests/\S+$} $name {} name
            tell failed $name [reason [lrange $lines 1 end]]
        }
        skip - ignore {tell skipped $data {}}
    }
}
set test_server_fd stdout

# Of an error that is no failed assertion the runner cuts off the first ten characters, as if it
# were one, and gives the whole with its stack behind it; of an assertion it gives the text.
proc reason {lines} {
    lassign $lines cut whole
    if {$whole ne {} && [string range $whole 10 end] eq $cut} {set lines [lrange $lines 1 end]}
    return [join $lines \n]
}

rename r suite_r
proc r {args} {
    if {$args eq {function flush}} return
    uplevel 1 [list suite_r {*}$args]
}

rename test suite_test
proc test {args} {
    set failed_before $::num_failed
    uplevel 1 [list suite_test {*}$args]
    if {$::num_failed > $failed_before} {catch {reconnect}}
}

# Bodies run statement by statement, and go on behind one that fails.
proc statement_by_statement {body} {
    set statement {}
    foreach line [split $body \n] {
        append statement $line \n
        if {![info complete $statement]} continue
        if {[catch {uplevel 1 $statement} error]} {
            tell between [string trim [lindex [split [string trim $statement] \n] 0]] $error
            catch {reconnect}
        }
        set statement {}
    }
}

rename start_server suite_start_server
proc start_server {options body} {
    uplevel 1 [list suite_start_server $options [list statement_by_statement $body]]
}

rename tags suite_tags
proc tags {tags body} {
    uplevel 1 [list suite_tags $tags [list statement_by_statement $body]]
}

foreach current_unit $units {
    set curfile tests/$current_unit.tcl
    source $curfile
}
tell finished {} {}
