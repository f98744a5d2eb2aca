/* The boot sector: loads the rest of the image, counts the boot on the disk, and enters C in flat 32-bit protected
   mode.

   The image lies in memory as it lies on the disk, from 0x7c00 on: this sector, the state sector, the C code. The
   linker script holds the layout. The count is written back by the BIOS, so a disk that was parked and put back
   proves itself. */

        .set COM1, 0x3f8
        .set CODE_SEGMENT, 0x08
        .set DATA_SEGMENT, 0x10

        .section .boot, "awx"
        .code16
        .globl boot
boot:
        cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        ljmp    $0, $load                       /* some BIOSes come in as 07c0:0000 */

load:
        sti
        movw    $packet, %si                    /* the BIOS has left the drive in dl */
        movb    $0x42, %ah                      /* extended read */
        int     $0x13
        jc      give_up
        cmpl    $0x4747534e, state              /* "NSGG", see state below */
        jne     give_up

count:
        incl    state_boots
        movw    $1, packet_sectors              /* of what was read only the state goes back */
        movw    $packet, %si
        movw    $0x4300, %ax                    /* extended write, no verify */
        int     $0x13
        setc    is_write_refused

enter_protected_mode:
        cli
        inb     $0x92, %al                      /* A20, by the fast gate */
        orb     $0x02, %al
        andb    $0xfe, %al                      /* bit 0 would reset the machine */
        outb    %al, $0x92
        lgdt    gdt_pointer
        movl    %cr0, %eax
        orb     $0x01, %al
        movl    %eax, %cr0
        ljmp    $CODE_SEGMENT, $enter_c

give_up:
        movw    $failure, %si
        movw    $COM1, %dx
1:      lodsb
        testb   %al, %al
        jz      2f
        outb    %al, %dx
        jmp     1b
2:      hlt
        jmp     2b

        .code32
enter_c:
        movw    $DATA_SEGMENT, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %fs
        movw    %ax, %gs
        movw    %ax, %ss
        movl    $0x7c00, %esp                   /* 30 KiB down to the BIOS's data */
        movl    $zeroed_start, %edi
        movl    $zeroed_words, %ecx
        xorl    %eax, %eax
        rep stosl
        movzbl  is_write_refused, %eax
        pushl   %eax
        pushl   $state
        call    guest_main
1:      hlt
        jmp     1b

failure:
        .asciz  "\nGUEST fault what=disk\n"
is_write_refused:
        .byte   0

        .balign 4
packet: .byte   16, 0
packet_sectors:
        .word   loaded_sectors
        .word   state, 0
        .quad   1

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9a000000ffff              /* code: 4 GiB from 0 */
        .quad   0x00cf92000000ffff              /* data: 4 GiB from 0 */
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt

        .org    510
        .word   0xaa55

/* The state sector, struct boot_state in main.c. Written by this sector at each boot, and by build.py. */
        .section .state, "aw"
        .globl state
state:  .ascii  "NSGGUEST"
state_boots:
        .long   0
        .byte   0                               /* flags */
        .org    512

        .section .note.GNU-stack, "", @progbits
