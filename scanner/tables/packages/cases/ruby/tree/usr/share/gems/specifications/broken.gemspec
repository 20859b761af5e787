system('reboot')
