// The DE1-SoC's top between processor and memory: runs the program in memory.hex and leaves the
// memory in result.hex; says PASS at the end, FAIL where something is wrong.
`timescale 1ns / 1ps

module de1_soc_system;
    parameter WORDS = 4096;
    parameter LENGTH = 0;
    localparam BASE = 32'h30000000, BUSY = 1, DONE = 2;
    wire [9:0] leds;
    reg [31:0] value;
    integer runs;

    espalier dut(
        .clk50_0__io(1'b0),
        .led_0__io(leds[0]), .led_1__io(leds[1]), .led_2__io(leds[2]), .led_3__io(leds[3]),
        .led_4__io(leds[4]), .led_5__io(leds[5]), .led_6__io(leds[6]), .led_7__io(leds[7]),
        .led_8__io(leds[8]), .led_9__io(leds[9]));
    defparam dut.sdram.WORDS = WORDS;

    task check(input ok, input [8*40-1:0] what);
        if (ok !== 1) $display("FAIL: %0s", what);
    endtask

    task power_up;
        begin
            dut.clocks_resets.running = 0;
            #3000 dut.clocks_resets.running = 1;
            #1000 dut.lightweight.read(21'h00, value);
            check(value == 32'h4C505345, "magic");
            dut.lightweight.read(21'h1000, value);
            check(value == 0, "nothing beyond the registers");
        end
    endtask

    task run;
        begin
            $readmemh("memory.hex", dut.sdram.memory);
            dut.lightweight.write(21'h20, BASE);
            dut.lightweight.write(21'h24, 16 * WORDS);
            dut.lightweight.write(21'h28, 0);
            dut.lightweight.write(21'h2C, LENGTH);
            dut.lightweight.write(21'h0C, 3);
            value = BUSY;
            while (value & BUSY) dut.lightweight.read(21'h10, value);
            check(value == DONE, "done, without a fault");
            check(dut.interrupts.irq === 64'd1, "interrupt 0 and no other");
        end
    endtask

    initial begin
        #1000 check(dut.sdram.cmd_valid_0 === 0, "quiet port before the first reset has ended");
        for (runs = 0; runs < 2; runs = runs + 1) begin
            power_up;
            run;
        end
        $writememh("result.hex", dut.sdram.memory);
        check(dut.general_purpose.gp_in === 32'd1, "drained");
        // held, a run does not end and the port stays quiet; released, it does
        dut.general_purpose.out = 1;
        #100 dut.lightweight.write(21'h0C, 3);
        #20000 dut.lightweight.read(21'h10, value);
        check(value == BUSY && dut.general_purpose.gp_in === 32'd1, "held");
        check(leds[3:1] === 3'b101, "lights: drained and busy");
        dut.general_purpose.out = 0;
        while (value & BUSY) dut.lightweight.read(21'h10, value);
        check(value == DONE, "done after all");
        $display("PASS");
        $finish;
    end
    initial #20000000 begin
        $display("FAIL: not ended in time");
        $finish;
    end
endmodule
