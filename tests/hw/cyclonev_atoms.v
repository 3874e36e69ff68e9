// Ports of the Cyclone V's hard blocks and of Quartus' library parts that the DE1-SoC top uses, as
// black boxes for parsers.
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
endmodule

module cyclonev_hps_interface_clocks_resets(
    input f2h_pending_rst_ack, input f2h_warm_rst_req_n, input f2h_dbg_rst_req_n,
    input f2h_cold_rst_req_n, output h2f_rst_n, output h2f_user0_clk);
endmodule

module cyclonev_hps_interface_fpga2hps(input [1:0] port_size_config);
endmodule

module cyclonev_hps_interface_hps2fpga(input [1:0] port_size_config);
endmodule

module cyclonev_hps_interface_interrupts(input [63:0] irq);
endmodule

module cyclonev_hps_interface_mpu_general_purpose(input [31:0] gp_in, output [31:0] gp_out);
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
endmodule

module altera_std_synchronizer_bundle(input clk, input reset_n, input [width-1:0] din,
                                      output [width-1:0] dout);
    parameter width = 1;
    parameter depth = 2;
endmodule

module altiobuf_out(input [number_of_channels-1:0] datain, input [number_of_channels-1:0] oe,
                    output [number_of_channels-1:0] dataout);
    parameter enable_bus_hold = "FALSE";
    parameter number_of_channels = 1;
    parameter use_differential_mode = "FALSE";
    parameter use_oe = "FALSE";
endmodule
