# U-Boot's part, with everything on the first partition: bitstream, bridges, Linux.
#   mkimage -A arm -T script -C none -d boot.cmd boot.scr
# mem=960M leaves the last 64 MiB of 1 GiB to the accelerator; cma=64M is for u-dma-buf alone.
# The bridges are opened after the FPGA is configured: the memory port takes its width and mode from
# the design then.
setenv bootargs console=ttyS0,115200 root=/dev/mmcblk0p2 rootwait rw mem=960M cma=64M
if load mmc 0:1 ${loadaddr} espalier.rbf; then
    fpga load 0 ${loadaddr} ${filesize} && bridge enable
fi
load mmc 0:1 ${kernel_addr_r} vmlinuz
load mmc 0:1 ${fdt_addr_r} de1_soc.dtb
load mmc 0:1 ${ramdisk_addr_r} initrd.img
bootz ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdt_addr_r}
