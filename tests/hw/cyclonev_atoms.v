// The Cyclone V's hard blocks and Quartus' library parts that the DE1-SoC top uses: their ports, for
// parsers, and as much behaviour as de1_soc_system.v needs.
`timescale 1ns / 1ps

module cyclonev_hps_interface_hps2fpga_light_weight(
    input clk,
    output [11:0] awid, output [20:0] awaddr, output [3:0] awlen, output [2:0] awsize,
    output [1:0] awburst, output [1:0] awlock, output [3:0] awcache, output [2:0] awprot,
    output awvalid, input awready,
    output [11:0] wid, output [31:0] wdata, output [3:0] wstrb, output wlast, output wvalid,
    input wready,
    input [11:0] bid, input [1:0] bresp, input bvalid, output bready,
    output [11:0] arid, output [20:0] araddr, output [3:0] arlen, output [2:0] arsize,
    output [1:0] arburst, output [1:0] arlock, output [3:0] arcache, output [2:0] arprot,
    output arvalid, input arready,
    input [11:0] rid, input [31:0] rdata, input [1:0] rresp, input rlast, input rvalid,
    output rready);
    // one access at a time, with another id each
    reg [20:0] address = 0;
    reg [31:0] data = 0;
    reg [11:0] id = 0;
    reg asking = 0, giving = 0, reading = 0;
    assign {awid, arid, wid} = {id, id, id};
    assign {awaddr, araddr, wdata, wstrb, wlast} = {address, address, data, 4'hf, 1'b1};
    assign {awlen, arlen, awsize, arsize} = {4'd0, 4'd0, 3'd2, 3'd2};
    assign {awburst, arburst, awlock, arlock} = {2'd1, 2'd1, 2'd0, 2'd0};
    assign {awcache, arcache, awprot, arprot} = 14'd0;
    assign {awvalid, wvalid, arvalid, bready, rready} = {asking, giving, reading, 1'b1, 1'b1};

    always @(posedge clk) begin
        if (awready) asking <= 0;
        if (wready) giving <= 0;
        if (arready) reading <= 0;
    end

    task write(input [20:0] at, input [31:0] value);
        begin
            @(negedge clk) {address, data, asking, giving, id} = {at, value, 2'b11, id + 12'd37};
            @(posedge clk) while (!bvalid) @(posedge clk);
            if (bid !== id || bresp !== 0) $display("FAIL: write %h: id %h %h, response %d",
                                                    at, id, bid, bresp);
        end
    endtask

    task read(input [20:0] at, output [31:0] value);
        begin
            @(negedge clk) {address, reading, id} = {at, 1'b1, id + 12'd37};
            @(posedge clk) while (!rvalid) @(posedge clk);
            value = rdata;
            if (rid !== id || rresp !== 0 || rlast !== 1) $display("FAIL: read %h", at);
        end
    endtask
endmodule

module cyclonev_hps_interface_fpga2sdram(
    input [5:0] cfg_axi_mm_select, input [11:0] cfg_cport_type, input [11:0] cfg_port_width,
    input [17:0] cfg_cport_rfifo_map, input [17:0] cfg_cport_wfifo_map,
    input [15:0] cfg_rfifo_cport_map, input [15:0] cfg_wfifo_cport_map,
    input cmd_port_clk_0, input cmd_port_clk_1, input cmd_port_clk_2,
    input cmd_valid_0, input cmd_valid_1, input cmd_valid_2,
    input [59:0] cmd_data_0, input [59:0] cmd_data_1, input [59:0] cmd_data_2,
    output cmd_ready_0, output cmd_ready_1, output cmd_ready_2,
    input wrack_ready_0, input wrack_ready_1, input wrack_ready_2,
    output wrack_valid_0, output wrack_valid_1, output wrack_valid_2,
    output [9:0] wrack_data_0, output [9:0] wrack_data_1, output [9:0] wrack_data_2,
    input wr_clk_0, input wr_clk_1, input wr_clk_2, input wr_clk_3,
    input wr_valid_0, input wr_valid_1, input wr_valid_2, input wr_valid_3,
    input [89:0] wr_data_0, input [89:0] wr_data_1, input [89:0] wr_data_2, input [89:0] wr_data_3,
    output wr_ready_0, output wr_ready_1, output wr_ready_2, output wr_ready_3,
    input rd_clk_0, input rd_clk_1, input rd_clk_2, input rd_clk_3,
    input rd_ready_0, input rd_ready_1, input rd_ready_2, input rd_ready_3,
    output rd_valid_0, output rd_valid_1, output rd_valid_2, output rd_valid_3,
    output [79:0] rd_data_0, output [79:0] rd_data_1, output [79:0] rd_data_2,
    output [79:0] rd_data_3);
    parameter WORDS = 4096;
    parameter BASE = 28'h3000000;
    // 128-bit words from address BASE * 16 on; commands and read data wait at random
    reg [127:0] memory [0:WORDS-1];
    reg [127:0] data = 0;
    reg [27:0] next = 0, reading = 0;
    reg [7:0] left = 0, owed = 0;
    reg ready = 0, valid = 0;
    integer i, seed = 1;
    wire take = cmd_valid_0 & ready;
    wire is_read = cmd_data_0[0], is_write = cmd_data_0[1];
    wire [27:0] at = (left != 0) ? next : cmd_data_0[29:2] - BASE;
    assign cmd_ready_0 = ready;
    assign {rd_valid_0, rd_valid_1, rd_valid_2, rd_valid_3} = {valid, valid, 2'b00};
    assign rd_data_0 = {16'd0, data[63:0]};
    assign rd_data_1 = {16'd0, data[127:64]};

    always @(posedge cmd_port_clk_0) begin
        valid <= 0;
        if (owed != 0 && $random(seed) % 4) begin
            valid <= 1;
            data <= memory[reading];
            reading <= reading + 1;
            owed <= owed - 1;
        end
        if (take && is_read) begin
            reading <= at;
            owed <= cmd_data_0[41:34];
        end
        if (take && is_write) begin
            for (i = 0; i < 8; i = i + 1) begin
                if (wr_data_0[80 + i]) memory[at][8 * i +: 8] <= wr_data_0[8 * i +: 8];
                if (wr_data_1[80 + i]) memory[at][64 + 8 * i +: 8] <= wr_data_1[8 * i +: 8];
            end
            left <= (left != 0) ? left - 8'd1 : cmd_data_0[41:34] - 8'd1;
            next <= at + 1;
        end
        if (take && (is_read == is_write || at >= WORDS || cmd_data_0[33:30] || cmd_data_0[59:42]
                     || is_read && left != 0))
            $display("FAIL: command %h", cmd_data_0);
        // one read at a time: the next waits for the last beat
        ready <= ($random(seed) % 3) && !(take && is_read) && owed == 0;
    end
endmodule

module cyclonev_hps_interface_clocks_resets(
    input f2h_pending_rst_ack, input f2h_warm_rst_req_n, input f2h_dbg_rst_req_n,
    input f2h_cold_rst_req_n, output h2f_rst_n, output h2f_user0_clk);
    reg running = 0;
    assign h2f_rst_n = running;
    assign h2f_user0_clk = 0;
endmodule

module cyclonev_hps_interface_fpga2hps(input [1:0] port_size_config);
endmodule

module cyclonev_hps_interface_hps2fpga(input [1:0] port_size_config);
endmodule

module cyclonev_hps_interface_interrupts(input [63:0] irq);
endmodule

module cyclonev_hps_interface_mpu_general_purpose(input [31:0] gp_in, output [31:0] gp_out);
    reg [31:0] out = 0;
    assign gp_out = out;
endmodule

module altera_pll(input refclk, input rst, output outclk, output locked);
    parameter reference_clock_frequency = "";
    parameter operation_mode = "";
    parameter fractional_vco_multiplier = "";
    parameter number_of_clocks = 1;
    parameter output_clock_frequency0 = "";
    parameter phase_shift0 = "";
    parameter duty_cycle0 = 50;
    parameter pll_type = "";
    parameter pll_subtype = "";
    reg clock = 0, ready = 0;
    assign {outclk, locked} = {clock, ready};
    initial #205 ready = 1;
    always #5 clock = ~clock;
endmodule

module altera_std_synchronizer_bundle(input clk, input reset_n, input [width-1:0] din,
                                      output [width-1:0] dout);
    parameter width = 1;
    parameter depth = 2;
    reg [width-1:0] first = 0, second = 0;
    assign dout = second;
    always @(posedge clk) {second, first} <= {first, din};
endmodule

module altiobuf_out(input [number_of_channels-1:0] datain, input [number_of_channels-1:0] oe,
                    output [number_of_channels-1:0] dataout);
    parameter enable_bus_hold = "FALSE";
    parameter number_of_channels = 1;
    parameter use_differential_mode = "FALSE";
    parameter use_oe = "FALSE";
    assign dataout = datain;
endmodule
